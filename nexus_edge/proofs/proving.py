"""Proving: run a committed model on inputs, and show that it was run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nexus_edge.errors import BadInput, OpeningError
from nexus_edge.proofs import _native
from nexus_edge.proofs.holding import HeldOpening, Holder
from nexus_edge.proofs.key import ProvingKey, VerifyingKey
from nexus_edge.proofs.native_errors import translated
from nexus_edge.proofs.opening import Opening
from nexus_edge.proofs.ports import Array, Port, to_integers
from nexus_edge.proofs.proof import Proof, Statement
from nexus_edge.types import NO_CONTEXT, Context, Milliseconds, TensorCommitment

Progress = Callable[[str, float], object]
"""Called with a phase and the fraction of it that is done; returning False cancels.

One call at a time, from any of the prover's threads, which wait for it: a callback only notes what it is told."""


@dataclass(frozen=True)
class Proved:
    """A proof, the outputs it shows, and what it cost."""

    outputs: list[Array]
    proof: Proof
    input_openings: list[Holder | None]
    """Who keeps the opening of each input: the given one, or a new one in memory. None where nothing is hidden."""
    output_openings: list[HeldOpening | None]
    """Likewise; the outputs' are always new."""
    prove_ms: Milliseconds
    """The whole call, execution included."""
    phases_ms: dict[str, float]
    cells: int
    lookups: int
    security_bits: float


def prove(
    key: ProvingKey,
    inputs: Sequence[Array],
    *,
    context: Context = NO_CONTEXT,
    clear_inputs: bool = False,
    commit_outputs: bool = False,
    input_openings: Sequence[Holder | None] | None = None,
    output_seeds: Sequence[_native.Seed | None] | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> Proved:
    """Run the model and prove it. The inputs enter as commitments and the outputs in clear, unless asked otherwise.

    In zero-knowledge mode (the key's) commitments hide. `input_openings` are the openings of inputs that are committed to already, one or None
    for each input; the rows that the proof opens are counted by each before this returns. Other commitments are made afresh: `Proved` has
    their openings, without which nobody can ever compare the tensor with the proof, or prove about it again. `output_seeds` are for commitments to
    outputs that must be the same whenever this is done again; who gives one counts the proofs that it is given to.

    The GIL is released meanwhile. Raises `BadInput`, `Cancelled`, `OpeningError`, `OpeningSpent` and `ProverError`, and then there is no proof;
    an exception of `progress` stops the proof and is raised.

    >>> from nexus_edge.data import demo_digits, demo_model
    >>> from nexus_edge.proofs import Model, commit_model, verify
    >>> key = commit_model(Model.from_tflite(demo_model()))
    >>> image, label = demo_digits()[0]
    >>> proved = prove(key, [image])
    >>> verify(key.verifying_key, proved.proof, outputs=proved.outputs)
    """
    started = time.perf_counter()
    public = key.verifying_key
    integers = to_integers(public.inputs, inputs)
    holders = _holders(public, integers, input_openings, clear_inputs)
    if key.secret is not None:
        key.secret.read().check_room()
    seeds = [None if holder is None else holder.read().seed for holder in holders]
    if output_seeds is not None:
        if len(output_seeds) != len(public.outputs) or not commit_outputs:
            why = f"expected one or None for each of {len(public.outputs)} committed outputs, got {len(output_seeds)}"
            raise OpeningError("the outputs' seeds cannot be used", why)
        seeds += output_seeds
    callback = None if progress is None else lambda phase, fraction: progress(phase, fraction) is not False
    with translated():
        made = key.native.prove(integers, context, clear_inputs, commit_outputs, threads, callback, seeds)
    outputs, statement, body, opened, of_model, figures = made
    proof = Proof(Statement(statement), body)
    # Every row is counted before anything is returned.
    if of_model is not None:
        if key.secret is None or public.commitment is None:
            raise OpeningError("the proof was dropped", "nobody counts the rows that it opens of the commitment to private weights")
        key.secret.spend(public.commitment, of_model[1])
    of_inputs = zip(public.inputs, proof.statement.inputs, opened[: len(inputs)], holders, strict=True)
    input_openings = [_counted(public, *one) for one in of_inputs]
    of_outputs = zip(public.outputs, proof.statement.outputs, opened[len(inputs) :], strict=True)
    output_openings = [_fresh(public, *one) for one in of_outputs]
    return Proved(
        outputs=[port.from_integers(output) for port, output in zip(key.verifying_key.outputs, outputs, strict=True)],
        proof=proof,
        input_openings=input_openings,
        output_openings=output_openings,
        prove_ms=Milliseconds(1000 * (time.perf_counter() - started)),
        phases_ms=dict(figures["phases_ms"]),
        cells=figures["cells"],
        lookups=figures["lookups"],
        security_bits=figures["security_bits"],
    )


def _holders(key: VerifyingKey, integers: Sequence[Array], given: Sequence[Holder | None] | None, clear: bool) -> list[Holder | None]:
    """One holder or None for each input, after checking that its opening is of this input and may serve for one more proof."""
    if given is None:
        return [None] * len(integers)
    if len(given) != len(integers):
        raise BadInput("wrong number of openings", f"expected one or None for each of {len(integers)} inputs, got {len(given)}")
    for port, array, holder in zip(key.inputs, integers, given, strict=True):
        if holder is None:
            continue
        if clear or key.mode == "plain":
            raise OpeningError("the opening has no use", f"{port.name!r} is {'in clear' if clear else 'committed without hiding'}")
        opening = holder.read()
        opening.check_port(port, key.security)
        opening.account.check_room()
        # Another tensor under the same seed would show the difference between the two.
        if not opening.commits_to(array):
            raise BadInput(f"array for {port.name!r} does not fit", "its opening is of a commitment to other values")
    return list(given)


Opened = tuple[_native.Seed, list[int]] | None
"""The seed and the opened rows of a hiding commitment."""


def _fresh(key: VerifyingKey, port: Port, stated: TensorCommitment | Array, opened: Opened) -> HeldOpening | None:
    """The opening of a new commitment, less the rows that the proof opens."""
    if opened is None or not isinstance(stated, bytes):
        return None
    seed, rows = opened
    return HeldOpening(Opening.fresh(port.tensor, key.security, stated, seed, rows))


def _counted(key: VerifyingKey, port: Port, stated: TensorCommitment | Array, opened: Opened, holder: Holder | None) -> Holder | None:
    """The holder of one commitment, after counting the rows that the proof opens."""
    if holder is None or opened is None or not isinstance(stated, bytes):
        return _fresh(key, port, stated, opened)
    _, rows = opened
    holder.spend(stated, rows)
    return holder
