"""Verification. It raises, and never returns an answer that could be ignored."""

from collections.abc import Sequence

import numpy as np

from nexus_edge.errors import BadInput, OpeningError, ProofRejected, RejectReason
from nexus_edge.proofs import _native
from nexus_edge.proofs.holding import Holder
from nexus_edge.proofs.key import VerifyingKey
from nexus_edge.proofs.native_errors import translated
from nexus_edge.proofs.opening import Opening, commitment_of
from nexus_edge.proofs.ports import Array, Port, to_integers
from nexus_edge.proofs.proof import Proof
from nexus_edge.types import Context, TensorCommitment


def verify(
    key: VerifyingKey,
    proof: Proof,
    *,
    inputs: Sequence[Array] | None = None,
    outputs: Sequence[Array] | None = None,
    input_openings: Sequence[Opening | Holder | None] | None = None,
    output_openings: Sequence[Opening | Holder | None] | None = None,
    context: Context | None = None,
) -> None:
    """Raise `ProofRejected` unless the proof shows its statement, and the statement is about the arrays and context given here.

    What is not given is not compared: a caller who does not compare the context accepts a proof that was made for someone else. A tensor behind
    a hiding commitment can be compared only by one who has its opening: without it, `OpeningError`. A proof about a private model is invalid
    until its key has been shown the model's registration (`verify_registration`, `EvidenceRecord.admit`).

    >>> from nexus_edge.data import demo_digits, demo_model
    >>> from nexus_edge.proofs import Model, commit_model, prove
    >>> key = commit_model(Model.from_tflite(demo_model()))
    >>> (image, _), (other, _) = demo_digits()[:2]
    >>> proved = prove(key, [image])
    >>> verify(key.verifying_key, proved.proof, inputs=[image], input_openings=proved.input_openings)
    >>> verify(key.verifying_key, proved.proof, inputs=[other], input_openings=proved.input_openings)
    Traceback (most recent call last):
        ...
    nexus_edge.errors.ProofRejected: the proof is rejected: it is about another 'image'
    """
    key.require_evidence()
    with translated():
        _native.verify(key.native, proof.statement.native, proof.body)
    if context is not None and proof.statement.context != context:
        raise ProofRejected(RejectReason.CONTEXT, f"it is bound to context {proof.statement.context.hex()}")
    compare(key, proof, inputs=inputs, outputs=outputs, input_openings=input_openings, output_openings=output_openings)


def compare(
    key: VerifyingKey,
    proof: Proof,
    *,
    inputs: Sequence[Array] | None = None,
    outputs: Sequence[Array] | None = None,
    input_openings: Sequence[Opening | Holder | None] | None = None,
    output_openings: Sequence[Opening | Holder | None] | None = None,
) -> None:
    """Raise `ProofRejected` unless the statement is about these arrays: what `verify` does after the proof is known to be valid.

    It says nothing of the proof. A committed array is committed again, which takes longer than to verify most proofs.
    """
    if inputs is not None:
        levels: list[Array | None] = [*to_integers(key.inputs, inputs)]
        _compare(key, key.inputs, proof.statement.inputs, levels, input_openings, RejectReason.INPUT)
    if outputs is not None:
        if len(outputs) != len(key.outputs):
            raise BadInput("wrong number of arrays", f"expected {len(key.outputs)} outputs, got {len(outputs)}")
        levels = [_levels(port, array) for port, array in zip(key.outputs, outputs, strict=True)]
        _compare(key, key.outputs, proof.statement.outputs, levels, output_openings, RejectReason.OUTPUT)


def _compare(
    key: VerifyingKey,
    ports: Sequence[Port],
    stated: Sequence[TensorCommitment | Array],
    arrays: Sequence[Array | None],
    openings: Sequence[Opening | Holder | None] | None,
    reason: RejectReason,
) -> None:
    """Reject unless the statement is about these integers; None for an array that no integers have."""
    if openings is None:
        openings = [None] * len(ports)
    if len(openings) != len(ports):
        raise BadInput("wrong number of openings", f"expected one or None for each of {len(ports)} tensors, got {len(openings)}")
    for port, says, integers, opening in zip(ports, stated, arrays, openings, strict=True):
        if integers is None or not _same(key, port, says, integers, opening):
            about = "it is about another" if reason is RejectReason.INPUT else "it shows another"
            raise ProofRejected(reason, f"{about} {port.name!r}")


def _same(key: VerifyingKey, port: Port, stated: TensorCommitment | Array, integers: Array, opening: Opening | Holder | None) -> bool:
    if not isinstance(stated, bytes):
        return stated.dtype == integers.dtype and np.array_equal(stated, integers)
    if key.mode == "plain":
        return commitment_of(port.tensor, np.ascontiguousarray(integers), key.security, None) == stated
    if opening is None:
        why = f"the commitment to {port.name!r} hides it"
        raise OpeningError("the array cannot be compared", why, "give the opening that its prover keeps")
    if not isinstance(opening, Opening):
        opening = opening.read()
    opening.check_port(port, key.security)
    found = commitment_of(port.tensor, np.ascontiguousarray(integers), key.security, opening.seed)
    if found == opening.commitment != stated:
        why = f"the opening is of another commitment to {port.name!r} than the proof's, which may be to the same array or to another"
        raise OpeningError("the array cannot be compared", why, "give the opening that belongs to this proof")
    return found == stated


def _levels(port: Port, array: Array) -> Array | None:
    """The integers whose values are exactly these, or None: a float array is compared bit for bit, never rounded."""
    port.check(array)
    if not port.float_edge:
        return array
    limits = np.iinfo(port.storage)
    levels = np.arange(limits.min, limits.max + 1).astype(port.storage)
    values = port.from_integers(levels)
    nearest = np.clip(np.searchsorted(values, array), 0, len(values) - 1)
    return levels[nearest] if values[nearest].tobytes() == array.tobytes() else None
