"""Proving: run a committed model on inputs, and show that it was run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nexus_edge.proofs.key import ProvingKey
from nexus_edge.proofs.native_errors import translated
from nexus_edge.proofs.ports import Array, to_integers
from nexus_edge.proofs.proof import Proof, Statement
from nexus_edge.types import NO_CONTEXT, Context, Milliseconds

Progress = Callable[[str, float], object]
"""Called with a phase and the fraction of it that is done; returning False cancels."""


@dataclass(frozen=True)
class Proved:
    """A proof, the outputs it shows, and what it cost."""

    outputs: list[Array]
    proof: Proof
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
    threads: int = 0,
    progress: Progress | None = None,
) -> Proved:
    """Run the model and prove it. The inputs enter as commitments and the outputs in clear, unless asked otherwise.

    The GIL is released meanwhile. Raises `BadInput`, `Cancelled`, `ProverError`; an exception of `progress` stops the proof and is raised.

    >>> from nexus_edge.data import demo_digits, demo_model
    >>> from nexus_edge.proofs import Model, commit_model, verify
    >>> key = commit_model(Model.from_tflite(demo_model()))
    >>> image, label = demo_digits()[0]
    >>> proved = prove(key, [image])
    >>> verify(key.verifying_key, proved.proof, outputs=proved.outputs)
    """
    started = time.perf_counter()
    integers = to_integers(key.verifying_key.inputs, inputs)
    callback = None if progress is None else lambda phase, fraction: progress(phase, fraction) is not False
    with translated():
        outputs, statement, body, figures = key.native.prove(integers, context, clear_inputs, commit_outputs, threads, callback)
    return Proved(
        outputs=[port.from_integers(output) for port, output in zip(key.verifying_key.outputs, outputs, strict=True)],
        proof=Proof(Statement(statement), body),
        prove_ms=Milliseconds(1000 * (time.perf_counter() - started)),
        phases_ms=dict(figures["phases_ms"]),
        cells=figures["cells"],
        lookups=figures["lookups"],
        security_bits=figures["security_bits"],
    )
