"""Commands on models: import, inspect, commit, run."""

import argparse
from pathlib import Path

from nexus_edge.commands.result import Result, Stopwatch
from nexus_edge.files import write_whole
from nexus_edge.memory import peak_rss
from nexus_edge.progress import ProgressBars
from nexus_edge.proofs import Model, ProvingKey, commit_model, load_model
from nexus_edge.proofs.arrays import read_tensors, write_tensors
from nexus_edge.proofs.forecast import forecast
from nexus_edge.units import show_mode, show_name, show_size, show_time


def model_import(arguments: argparse.Namespace) -> Result:
    """`nexus-edge model import`."""
    watch = Stopwatch()
    with ProgressBars() as bars:
        model = import_model(arguments.model, arguments.semantics, bars, watch)
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
        **watch.fields(),
    }
    lines = [
        f"model      {show_name(described['name'])}  ({described['semantics']})",
        f"digest     {data['digest']}  (weights {arguments.weights}, {show_mode(arguments.mode)} proofs)",
    ]
    for role, ports in (("input", model.inputs), ("output", model.outputs)):
        for port in ports:
            quantised = f"scale {port.scale:.9g}, zero point {port.zero_point}" if port.scale is not None else "no scale"
            lines.append(f"{role:<10} {show_name(port.name)}  {port.dtype.name} {list(port.shape)}  {quantised}")
    for index, operator in enumerate(described["operators"]):
        lines.append(f"{index:>4}  {operator['kind']:<18} {list(operator['shape'])!s:<22} {show_name(operator['output'])}")
    lines.append(f"size       {described['weights']:,} weights, {described['cells']:,} cells, {described['lookups']:,} lookups")
    lines.append(show_forecast(key))
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
        "mode": arguments.mode,
        **watch.fields(),
    }
    lines = [
        f"digest    {data['digest']}",
        f"key       {arguments.key}  {show_size(len(content))}, weights {arguments.weights}, {show_mode(arguments.mode)} proofs",
    ]
    return Result(data, lines)


def infer(arguments: argparse.Namespace) -> Result:
    """`nexus-edge infer`."""
    watch = Stopwatch()
    with ProgressBars() as bars:
        model = import_model(arguments.model, arguments.semantics, bars, watch)
    inputs = read_tensors(arguments.input, model.inputs, "input")
    with watch.step("infer"):
        outputs = model.run(inputs, arguments.threads)
    write_tensors(arguments.output, model.outputs, outputs, "output")
    data = {"outputs": [port.describe() for port in model.outputs], **watch.fields(), "peak_rss_bytes": peak_rss()}
    return Result(data, [f"output    {arguments.output}  in {show_time(watch.ms['infer'])}"])


def import_model(path: Path, semantics: str | None, bars: ProgressBars, watch: Stopwatch) -> Model:
    """The model in a file."""
    bars("import", 0.0)
    with watch.step("import"):
        return load_model(path, semantics)


def _committed(arguments: argparse.Namespace, watch: Stopwatch) -> tuple[Model, ProvingKey]:
    with ProgressBars() as bars:
        model = import_model(arguments.model, arguments.semantics, bars, watch)
        bars("commit", 0.0)
        with watch.step("commit"):
            return model, commit_model(model, arguments.weights, arguments.security, arguments.mode)


def show_forecast(key: ProvingKey) -> str:
    """What a proof will cost, for people."""
    cost = forecast(key.verifying_key.describe())
    figures = f"{show_time(cost['prove_ms'])} on one core, {show_size(cost['memory_bytes'])} of memory"
    return f"forecast   about {figures}; a proof of {show_size(cost['proof_bytes'])}"
