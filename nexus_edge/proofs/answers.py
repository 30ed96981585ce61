"""What a requester checks of an answer before it pays."""

from nexus_edge.errors import BadInput, OpeningError, ProofRejected, RejectReason
from nexus_edge.proofs.key import VerifyingKey
from nexus_edge.proofs.opening import Opening
from nexus_edge.proofs.parameters import ParameterSet
from nexus_edge.proofs.proof import Proof
from nexus_edge.proofs.verification import verify
from nexus_edge.proofs.wired import output_commitment, output_seeds, read_tensors, without_float_edges
from nexus_edge.types import Context, Digest, ModelDigest
from nexus_edge.wire.digests import input_commitment, statement_digest


def shown_proof(key: VerifyingKey, model: ModelDigest, params: str, inc: Digest, proof: bytes, statement: Digest | None) -> Proof:
    """The proof, not verified yet, if what it states is about this model and the input behind `inc`. Raises `ProofRejected`."""
    chosen = ParameterSet.parse(params)
    if (key.mode, key.security) != (chosen.mode, chosen.security):
        raise ProofRejected(RejectReason.STATEMENT, f"the key is for {key.mode}-{key.security}, the lease for {params}")
    if key.digest != model:
        raise ProofRejected(RejectReason.STATEMENT, f"the key is of model {key.digest.hex()}, the lease is about {model.hex()}")
    shown = Proof.from_bytes(proof)
    if statement is not None and statement_digest(shown.statement.to_bytes()) != statement:
        raise ProofRejected(RejectReason.STATEMENT, "it has another statement than the one that was signed")
    if shown.statement.digest != model:
        raise ProofRejected(RejectReason.STATEMENT, f"it is about model {shown.statement.digest.hex()}")
    committed = [one for one in shown.statement.inputs if isinstance(one, bytes)]
    # The number of inputs is the verifier's to check, but `input_commitment` would mind before it.
    if len(committed) != len(key.inputs) or input_commitment(committed) != inc:
        raise ProofRejected(RejectReason.INPUT, "it is about another input")
    return shown


def verify_answer(
    key: VerifyingKey,
    model: ModelDigest,
    params: str,
    context: Context,
    inc: Digest,
    output: bytes,
    proof: bytes,
    *,
    statement: Digest | None = None,
    outc: Digest | None = None,
    output_seed: bytes | None = None,
) -> Proof:
    """The proof, if it shows exactly what the lease was about: this model, on the input behind `inc`, for this lease, gave this output.

    `output` are the program's integers. With `outc` the output must be committed, and that must be its commitment; without, it must be clear.
    `statement` is what the worker signed. A committed output hides its values: comparing it needs the worker's `output_seed`.

    Raises `ProofRejected`, and `OpeningError` if a committed output comes without its seed. Takes milliseconds, and up to a second for large
    models: for a thread.
    """
    bare = without_float_edges(key)
    shown = shown_proof(key, model, params, inc, proof, statement)
    try:
        levels = read_tensors(bare.outputs, output, "output")
    except BadInput as misfit:
        raise ProofRejected(RejectReason.OUTPUT, misfit.why) from misfit
    hidden = [one for one in shown.statement.outputs if isinstance(one, bytes)]
    if len(hidden) != (0 if outc is None else len(key.outputs)):
        raise ProofRejected(RejectReason.OUTPUT, f"it shows {len(hidden)} of {len(key.outputs)} outputs as commitments")
    openings: list[Opening | None] | None = None
    if outc is not None:
        if output_commitment(hidden) != outc:
            raise ProofRejected(RejectReason.OUTPUT, "it commits to another output than the one that was signed")
        if key.mode == "zk":
            if output_seed is None:
                raise OpeningError("the output cannot be compared", "the commitment to it hides it", "ask the worker for its seed")
            openings = [
                None if seed is None else Opening.fresh(port.tensor, key.security, commitment, seed)
                for port, commitment, seed in zip(bare.outputs, hidden, output_seeds(key, output_seed), strict=True)
            ]
    verify(bare, shown, outputs=levels, output_openings=openings, context=context)
    return shown
