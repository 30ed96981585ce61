"""Verification. It raises, and never returns an answer that could be ignored."""

from collections.abc import Callable, Sequence

import numpy as np

from nexus_edge.errors import BadInput, ProofRejected, RejectReason
from nexus_edge.proofs import _native
from nexus_edge.proofs.key import VerifyingKey
from nexus_edge.proofs.native_errors import translated
from nexus_edge.proofs.ports import Array, Port, to_integers
from nexus_edge.proofs.proof import Proof
from nexus_edge.types import Context, TensorCommitment


def verify(
    key: VerifyingKey,
    proof: Proof,
    *,
    inputs: Sequence[Array] | None = None,
    outputs: Sequence[Array] | None = None,
    context: Context | None = None,
) -> None:
    """Raise `ProofRejected` unless the proof shows its statement, and the statement is about the arrays and context given here.

    What is not given is not compared: a caller who does not compare the context accepts a proof that was made for someone else.

    >>> from nexus_edge.data import demo_digits, demo_model
    >>> from nexus_edge.proofs import Model, commit_model, prove
    >>> key = commit_model(Model.from_tflite(demo_model()))
    >>> (image, _), (other, _) = demo_digits()[:2]
    >>> proof = prove(key, [image]).proof
    >>> verify(key.verifying_key, proof, inputs=[image])
    >>> verify(key.verifying_key, proof, inputs=[other])
    Traceback (most recent call last):
        ...
    nexus_edge.errors.ProofRejected: the proof is rejected: it is about another 'image'
    """
    with translated():
        _native.verify(key.native, proof.statement.native, proof.body)
    if context is not None and proof.statement.context != context:
        raise ProofRejected(RejectReason.CONTEXT, f"it is bound to context {proof.statement.context.hex()}")
    if inputs is not None:
        stated = proof.statement.inputs
        for index, (port, integers) in enumerate(zip(key.inputs, to_integers(key.inputs, inputs), strict=True)):
            if not _same(stated[index], integers, index, key.native.commit_input):
                raise ProofRejected(RejectReason.INPUT, f"it is about another {port.name!r}")
    if outputs is not None:
        _compare_outputs(key, proof, outputs)


def _compare_outputs(key: VerifyingKey, proof: Proof, outputs: Sequence[Array]) -> None:
    if len(outputs) != len(key.outputs):
        raise BadInput("wrong number of arrays", f"expected {len(key.outputs)} outputs, got {len(outputs)}")
    for index, (port, stated, array) in enumerate(zip(key.outputs, proof.statement.outputs, outputs, strict=True)):
        integers = _levels(port, array)
        if integers is None or not _same(stated, integers, index, key.native.commit_output):
            raise ProofRejected(RejectReason.OUTPUT, f"it shows another {port.name!r}")


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


def _same(stated: TensorCommitment | Array, integers: Array, index: int, commit: Callable[[int, Array], bytes]) -> bool:
    if isinstance(stated, bytes):
        with translated():
            return commit(index, np.ascontiguousarray(integers)) == stated
    return stated.dtype == integers.dtype and np.array_equal(stated, integers)
