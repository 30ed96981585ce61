"""What a child process does: prepare a model, run it, and prove. Named as `nexus_edge.proofs.tasks:prove` by whoever sends tasks.

A task is called with a report, to be told phases and fractions and to say whether to go on, and with arguments that CBOR can carry; so is
what it returns. Committed models are kept between tasks, as many as fit the memory that the caller allows.
"""

import contextlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from nexus_edge.errors import BadInput, Cancelled, MalformedModel, ProverError, UnsupportedModel
from nexus_edge.files import read_bounded, write_whole
from nexus_edge.proofs.forecast import forecast
from nexus_edge.proofs.key import ProvingKey, commit_model
from nexus_edge.proofs.model import FORMAT, Model
from nexus_edge.proofs.parameters import ParameterSet
from nexus_edge.proofs.ports import Array
from nexus_edge.proofs.proving import Proved
from nexus_edge.proofs.proving import prove as make_proof
from nexus_edge.proofs.verification import verify
from nexus_edge.proofs.wired import (
    input_commitments,
    input_openings,
    output_commitment,
    output_seeds,
    proving_without_float_edges,
    read_tensors,
    tensor_bytes,
)
from nexus_edge.types import Context, TensorCommitment
from nexus_edge.wire.cbor import Value
from nexus_edge.wire.digests import input_commitment
from nexus_edge.wire.limits import OUTPUT, PROOF

Report = Callable[[str, float], bool]

NOUN: Final = "model"
WEIGHT_BYTES: Final = 40
"""Of a kept model for each byte of its file: the weights as field elements, encoded, and hashed. Measured: 24 to 37."""
KEPT_FLOOR: Final = 2 << 20
"""Of a kept model of any size: tables of operators."""


@dataclass(frozen=True)
class _Committed:
    """A model that can prove, by its integers."""

    model: Model
    key: ProvingKey
    cost: int


_kept: "OrderedDict[tuple[str, str], _Committed]" = OrderedDict()


def prepare(report: Report, *, source: str, target: str, params: str, name: str = "", keep: int = 0) -> dict[str, Value]:
    """Read a model file, commit to it, and time one run of it.

    `source` is a `.tflite` file or a program; the program is written to `target`, if that is given. Raises `MalformedModel`, `UnsupportedModel`,
    `BadInput` for unknown parameters, and `FileError`.
    """
    chosen = ParameterSet.parse(params)
    _check(report("import", 0.0))
    data = read_bounded(Path(source), FORMAT.limit, NOUN)
    model = Model.from_bytes(data) if data.startswith(FORMAT.magic) else Model.from_tflite(data, name or Path(source).stem)
    if model.is_private:
        raise UnsupportedModel("the model is not for other machines", "its weights are private to its owner", "prove with it there")
    program = model.to_bytes()
    _check(report("commit", 0.0))
    key = commit_model(model, "committed", chosen.security, chosen.mode)
    if keep and target:
        _keep((target, params), model, key, len(program), keep)
    _check(report("measure", 0.0))
    public = key.verifying_key
    run_ns, core_ns = _timed(model)
    if target:
        write_whole(Path(target), program, NOUN)
    described = public.describe()
    expected = forecast(described)
    return {
        "digest": bytes(public.digest),
        "key": public.to_bytes(),
        "name": str(described["name"])[:64],
        "semantics": str(described["semantics"]),
        "described": json.dumps(described),
        "input_bytes": tensor_bytes(public.inputs),
        "output_bytes": tensor_bytes(public.outputs),
        "run_us": run_ns // 1000,
        "core_run_us": core_ns // 1000,
        "prove_ms": max(1, round(expected["prove_ms"])),
        "memory": expected["memory_bytes"],
        "proof_bytes": expected["proof_bytes"],
        "program_bytes": len(program),
    }


def run(report: Report, *, program: str, params: str, model: bytes, data: bytes, keep: int = 0) -> dict[str, Value]:
    """Run a model exactly. Returns the output's integers, and what that took. Raises `BadInput` and `MalformedModel`."""
    committed = _open(program, params, model, keep, report)
    integers = read_tensors(committed.key.verifying_key.inputs, data, "input")
    _check(report("execute", 0.0))
    output, run_ns, core_ns = _run(committed.model, integers)
    return {"output": _joined(output), "run_us": run_ns // 1000, "core_run_us": core_ns // 1000}


def prove(
    report: Report,
    *,
    program: str,
    params: str,
    model: bytes,
    data: bytes,
    seed: bytes,
    openings: int,
    expected: bytes,
    commitments: Sequence[TensorCommitment] = (),
    context: bytes,
    commit_output: bool,
    output_seed: bytes,
    keep: int = 0,
) -> dict[str, Value]:
    """Run a model, prove it, and verify the proof.

    `program` is a file that `prepare` wrote, `model` its digest. `data` and `seed` are the requester's input and what commits it to `expected`,
    with `openings` proofs to spend; `commitments` are those to each tensor, if the caller has computed them: the proof would not hold about others. Raises `BadInput` for an input that is not the one committed to, `MalformedModel` for a file that is not the
    model, `ProverError` and `Cancelled`.
    """
    committed = _open(program, params, model, keep, report)
    key, public = committed.key, committed.key.verifying_key
    integers = read_tensors(public.inputs, data, "input")
    commitments = [TensorCommitment(bytes(one)) for one in commitments] or input_commitments(public, data, seed)
    if input_commitment(commitments) != expected:
        raise BadInput("the input is refused", "it is not the one that the lease commits to")
    holders = input_openings(public, commitments, seed, openings)
    _check(report("execute", 0.0))
    output, run_ns, core_run_ns = _run(committed.model, integers)
    started, cores = time.perf_counter_ns(), time.process_time_ns()
    proved = make_proof(
        key,
        integers,
        context=Context(context),
        commit_outputs=commit_output,
        input_openings=None if public.mode == "plain" else holders,
        output_seeds=output_seeds(public, output_seed) if commit_output else None,
        progress=report,
    )
    prove_ns, core_prove_ns = time.perf_counter_ns() - started, time.process_time_ns() - cores
    _check(report("verify", 0.0))
    checked = time.perf_counter_ns()
    _check_own(committed, proved, commitments, output, Context(context))
    verify_ns = time.perf_counter_ns() - checked
    _check(report("verify", 1.0))
    joined, proof = _joined(output), proved.proof.to_bytes()
    if len(joined) > OUTPUT or len(proof) > PROOF:
        raise ProverError("the answer is too large to be sent", f"output of {len(joined)} bytes, proof of {len(proof)} bytes")
    shown = [one for one in proved.proof.statement.outputs if isinstance(one, bytes)]
    return {
        "output": joined,
        "output_commitment": output_commitment(shown) if commit_output else None,
        "statement": proved.proof.statement.to_bytes(),
        "proof": proof,
        "run_us": run_ns // 1000,
        "core_run_us": core_run_ns // 1000,
        "prove_us": prove_ns // 1000,
        "core_prove_us": core_prove_ns // 1000,
        "phases_us": _phases(run_ns, proved, verify_ns),
    }


def _open(program: str, params: str, model: bytes, keep: int, report: Report) -> _Committed:
    """The committed model in a file, kept or made. Its digest is compared: it names every bit of program and weights."""
    with contextlib.suppress(KeyError):
        _kept.move_to_end((program, params))
        found = _kept[(program, params)]
        if found.key.verifying_key.digest == model:
            return found
        del _kept[(program, params)]
    chosen = ParameterSet.parse(params)
    _check(report("load", 0.0))
    data = read_bounded(Path(program), FORMAT.limit, NOUN)
    loaded = Model.from_bytes(data)
    key = commit_model(loaded, "committed", chosen.security, chosen.mode)
    if key.verifying_key.digest != model:
        raise MalformedModel("the file is not the model", f"its digest is {key.verifying_key.digest.hex()}, not {model.hex()}")
    return _keep((program, params), loaded, key, len(data), keep)


def _keep(where: tuple[str, str], model: Model, key: ProvingKey, size: int, keep: int) -> _Committed:
    committed = _Committed(model, proving_without_float_edges(key), KEPT_FLOOR + WEIGHT_BYTES * size)
    while _kept and sum(one.cost for one in _kept.values()) + committed.cost > keep:
        _kept.popitem(last=False)
    if committed.cost <= keep:
        _kept[where] = committed
    return committed


def _run(model: Model, integers: list[Array]) -> tuple[list[Array], int, int]:
    """The program's integers, and nanoseconds of time and of all cores together."""
    started, cores = time.perf_counter_ns(), time.process_time_ns()
    output = model.native.run(integers)
    return output, time.perf_counter_ns() - started, time.process_time_ns() - cores


def _phases(run_ns: int, proved: Proved, verify_ns: int) -> list[Value]:
    """Names and microseconds of all that was reported, in that order. The prover runs the model once more, for its trace."""
    phases = {phase: round(1000 * ms) for phase, ms in proved.phases_ms.items()}
    phases = {"execute": 0, **phases, "verify": verify_ns // 1000}
    phases["execute"] += run_ns // 1000
    return [[phase, us] for phase, us in phases.items()]


def _timed(model: Model) -> tuple[int, int]:
    """Of one run that is not the first, which loads and allocates."""
    zeros = [np.full(port.shape, port.zero_point, port.storage) for port in model.inputs]
    _run(model, zeros)
    _, run_ns, core_ns = _run(model, zeros)
    return run_ns, core_ns


def _check_own(committed: _Committed, proved: Proved, inputs: Sequence[TensorCommitment], output: list[Array], context: Context) -> None:
    """What leaves this machine signed has been verified here, by the verifier that everyone has."""
    if any(not np.array_equal(one, other) for one, other in zip(proved.outputs, output, strict=True)):
        raise ProverError("the proof shows another output than the executor computed", "", "test this machine's memory and processor")
    if proved.proof.statement.inputs != list(inputs):
        raise ProverError("the proof is about another input than was committed to")
    verify(committed.key.verifying_key, proved.proof, outputs=output, output_openings=proved.output_openings, context=context)


def _joined(tensors: list[Array]) -> bytes:
    return b"".join(np.ascontiguousarray(one).astype(one.dtype.newbyteorder("<")).tobytes() for one in tensors)


def _check(go_on: Any) -> None:
    if go_on is False:
        raise Cancelled("stopped")
