"""What the commands of `nexus-edge` do: files in, files out, figures for a person or a script."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nexus_edge.errors import NexusEdgeError, ProofRejected
from nexus_edge.files import read_bounded, write_whole
from nexus_edge.memory import peak_rss
from nexus_edge.progress import ProgressBars
from nexus_edge.proofs import Model, Proof, ProvingKey, VerifyingKey, commit_model, load_model, prove, verify
from nexus_edge.proofs.arrays import read_tensors, write_tensors
from nexus_edge.proofs.forecast import forecast
from nexus_edge.proofs.key import KEY_LIMIT
from nexus_edge.proofs.proof import FORMAT as PROOF_FORMAT
from nexus_edge.types import NO_CONTEXT
from nexus_edge.units import show_name, show_size, show_time


@dataclass(frozen=True)
class Result:
    """What a command found: one object for `--json`, lines for people, and what went wrong after all."""

    data: dict[str, Any]
    lines: list[str]
    error: NexusEdgeError | None = None


@dataclass
class Stopwatch:
    """Times steps in milliseconds."""

    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step, also when it fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] = 1000 * (time.perf_counter() - started)


def model_import(arguments: argparse.Namespace) -> Result:
    """`nexus-edge model import`."""
    watch = Stopwatch()
    with ProgressBars() as bars:
        model = _import(arguments.model, arguments.semantics, bars, watch)
    content = model.to_bytes()
    write_whole(arguments.output, content, "program")
    data = {**model.describe(), "import_ms": watch.ms["import"], "program_bytes": len(content)}
    return Result(data, [f"program   {arguments.output}  {show_size(len(content))}, imported in {show_time(watch.ms['import'])}"])


def model_inspect(arguments: argparse.Namespace) -> Result:
    """`nexus-edge model inspect`."""
    watch = Stopwatch()
    model, key = _committed(arguments, watch)
    described = key.verifying_key.describe()
    data = {
        "digest": key.verifying_key.digest.hex(),
        **described,
        "forecast": forecast(described),
        "soundness": key.verifying_key.soundness(),
        **_times(watch),
    }
    lines = [
        f"model      {show_name(described['name'])}  ({described['semantics']})",
        f"digest     {data['digest']}  (weights {arguments.weights})",
    ]
    for role, ports in (("input", model.inputs), ("output", model.outputs)):
        for port in ports:
            quantised = f"scale {port.scale:.9g}, zero point {port.zero_point}" if port.scale is not None else "no scale"
            lines.append(f"{role:<10} {show_name(port.name)}  {port.dtype.name} {list(port.shape)}  {quantised}")
    for index, operator in enumerate(described["operators"]):
        lines.append(f"{index:>4}  {operator['kind']:<18} {list(operator['shape'])!s:<22} {show_name(operator['output'])}")
    lines.append(f"size       {described['weights']:,} weights, {described['cells']:,} cells, {described['lookups']:,} lookups")
    lines.append(_forecast(key))
    return Result(data, lines)


def model_commit(arguments: argparse.Namespace) -> Result:
    """`nexus-edge model commit`."""
    watch = Stopwatch()
    _, key = _committed(arguments, watch)
    content = key.verifying_key.to_bytes()
    write_whole(arguments.key, content, "verifying key")
    data = {
        "digest": key.verifying_key.digest.hex(),
        "key_bytes": len(content),
        "committed_weights": arguments.weights == "committed",
        **_times(watch),
    }
    lines = [f"digest    {data['digest']}", f"key       {arguments.key}  {show_size(len(content))}, weights {arguments.weights}"]
    return Result(data, lines)


def infer(arguments: argparse.Namespace) -> Result:
    """`nexus-edge infer`."""
    watch = Stopwatch()
    with ProgressBars() as bars:
        model = _import(arguments.model, arguments.semantics, bars, watch)
    inputs = read_tensors(arguments.input, model.inputs, "input")
    with watch.step("infer"):
        outputs = model.run(inputs, arguments.threads)
    write_tensors(arguments.output, model.outputs, outputs, "output")
    data = {"outputs": [port.describe() for port in model.outputs], **_times(watch), "peak_rss_bytes": peak_rss()}
    return Result(data, [f"output    {arguments.output}  in {show_time(watch.ms['infer'])}"])


def prove_command(arguments: argparse.Namespace) -> Result:
    """`nexus-edge prove`."""
    watch = Stopwatch()
    with ProgressBars() as bars:
        model = _import(arguments.model, arguments.semantics, bars, watch)
        inputs = read_tensors(arguments.input, model.inputs, "input")
        bars("commit", 0.0)
        with watch.step("commit"):
            key = commit_model(model, arguments.weights, arguments.security)
        if bars.drawn:
            bars.say(_forecast(key))
        proved = prove(
            key,
            inputs,
            context=arguments.context or NO_CONTEXT,
            clear_inputs=arguments.clear_input,
            commit_outputs=arguments.commit_output,
            threads=arguments.threads,
            progress=bars,
        )
    content = proved.proof.to_bytes()
    if arguments.output is not None:
        write_tensors(arguments.output, model.outputs, proved.outputs, "output")
    write_whole(arguments.proof, content, "proof")
    data = {
        "digest": key.verifying_key.digest.hex(),
        "prove_ms": proved.prove_ms,
        "phases_ms": proved.phases_ms,
        "proof_bytes": len(content),
        "peak_rss_bytes": peak_rss(),
        "security_bits": proved.security_bits,
        "cells": proved.cells,
        "lookups": proved.lookups,
        "context": proved.proof.statement.context.hex(),
        **_times(watch),
    }
    lines = [
        f"model     {data['digest']}",
        f"proof     {arguments.proof}  {show_size(len(content))}, {proved.security_bits:.1f} bits",
        f"proved    in {show_time(proved.prove_ms)}, {show_size(peak_rss())} of memory",
        "phases    " + ", ".join(f"{phase} {show_time(ms)}" for phase, ms in proved.phases_ms.items()),
    ]
    return Result(data, lines)


def verify_command(arguments: argparse.Namespace) -> Result:
    """`nexus-edge verify`. Whatever goes wrong, `verified` is false."""
    watch = Stopwatch()
    data: dict[str, Any] = {"verified": False, "verify_ms": None, "reason": None}
    try:
        key_bytes = read_bounded(arguments.key, KEY_LIMIT, "verifying key")
        proof_bytes = read_bounded(arguments.proof, PROOF_FORMAT.limit, "proof")
        with watch.step("key"):
            key = VerifyingKey.from_bytes(key_bytes)
        inputs = None if arguments.input is None else read_tensors(arguments.input, key.inputs, "input")
        outputs = None if arguments.output is None else read_tensors(arguments.output, key.outputs, "output")
        with watch.step("verify"):
            proof = Proof.from_bytes(proof_bytes)
            verify(key, proof, inputs=inputs, outputs=outputs, context=arguments.context)
    except NexusEdgeError as failed:
        data["verify_ms"] = watch.ms.get("verify")
        data["reason"] = failed.reason.value if isinstance(failed, ProofRejected) else None
        return Result(data, [], failed)
    bits = key.soundness()["bits"]
    data |= {
        "verified": True,
        "verify_ms": watch.ms["verify"],
        "key_ms": watch.ms["key"],
        "security_bits": bits,
        "digest": key.digest.hex(),
        "context": proof.statement.context.hex(),
    }
    return Result(data, [f"verified  model {data['digest']}", f"          in {show_time(watch.ms['verify'])}, {bits:.1f} bits"])


def demo(_: argparse.Namespace) -> Result:
    """`nexus-edge demo`."""
    from nexus_edge.demo import demonstrate

    receipt = demonstrate()
    return Result(receipt.data(), receipt.lines())


def _import(path: Path, semantics: str | None, bars: ProgressBars, watch: Stopwatch) -> Model:
    bars("import", 0.0)
    with watch.step("import"):
        return load_model(path, semantics)


def _committed(arguments: argparse.Namespace, watch: Stopwatch) -> tuple[Model, ProvingKey]:
    with ProgressBars() as bars:
        model = _import(arguments.model, arguments.semantics, bars, watch)
        bars("commit", 0.0)
        with watch.step("commit"):
            return model, commit_model(model, arguments.weights, arguments.security)


def _forecast(key: ProvingKey) -> str:
    cost = forecast(key.verifying_key.describe())
    figures = f"{show_time(cost['prove_ms'])} on one core, {show_size(cost['memory_bytes'])} of memory"
    return f"forecast   about {figures}; a proof of {show_size(cost['proof_bytes'])}"


def _times(watch: Stopwatch) -> dict[str, float]:
    return {f"{step}_ms": ms for step, ms in watch.ms.items()}
