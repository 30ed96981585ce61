"""Commands on models: import, inspect, commit, run."""

import argparse
import os
from pathlib import Path

from nexus_edge.commands.result import Result, Stopwatch
from nexus_edge.errors import FileError, UsageError
from nexus_edge.files import write_whole
from nexus_edge.memory import peak_rss
from nexus_edge.progress import ProgressBars
from nexus_edge.proofs import Model, ModelSecret, ModelSecretFile, ProvingKey, commit_model, load_model, reopen_model
from nexus_edge.proofs.arrays import read_tensors, write_tensors
from nexus_edge.proofs.forecast import forecast
from nexus_edge.types import PrivateForm
from nexus_edge.units import show_mode, show_name, show_size, show_time


def model_import(arguments: argparse.Namespace) -> Result:
    """`nexus-edge model import`."""
    watch = Stopwatch()
    with ProgressBars() as bars:
        model = import_model(arguments.model, arguments.semantics, bars, watch, private_form(arguments))
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
    _check_secret(arguments)
    watch = Stopwatch()
    _, key = _committed(arguments, watch)
    # A key whose secret is lost could never be used: so the secret is on the disk first.
    secret = None if arguments.secret is None else key.save_secret(arguments.secret)
    content = key.verifying_key.to_bytes()
    write_whole(arguments.key, content, "verifying key")
    data = {
        "digest": key.verifying_key.digest.hex(),
        "key_bytes": len(content),
        "committed_weights": arguments.weights == "committed",
        "mode": arguments.mode,
        "private": arguments.private,
        "secret": None if secret is None else {"file": str(arguments.secret), **secret.read().describe()},
        **watch.fields(),
    }
    lines = [
        f"digest    {data['digest']}",
        f"key       {arguments.key}  {show_size(len(content))}, weights {arguments.weights}, {show_mode(arguments.mode)} proofs",
    ]
    if secret is not None:
        lines.append(f"secret    {arguments.secret}  keep it; {show_left(secret.read())}")
    return Result(data, lines)


def show_left(secret: ModelSecret) -> str:
    """What may still be opened of a commitment to private weights, for people."""
    proofs = secret.proofs_left
    kept = f", and {secret.kept} kept for a link" if secret.kept else ""
    return f"{secret.account.left} rows left, enough for {proofs} proof{'' if proofs == 1 else 's'}{kept}"


def _check_secret(arguments: argparse.Namespace) -> None:
    """Raise before anything is made whose secret could not be written."""
    if (arguments.secret is not None) != arguments.private:
        raise UsageError("wrong usage", "--private and --secret go together", "a private model has a secret: say where to write it")
    if arguments.secret is None:
        return
    distinct(arguments.model, arguments.key, arguments.secret)
    check_places(arguments.key, arguments.secret)
    check_no_secret(arguments.secret)


def check_no_secret(path: Path) -> None:
    """Raise if there is a secret."""
    if ModelSecretFile(path).exists():
        raise FileError("the secret of the model cannot be written", f"{path} exists already", "name another file")


def check_places(*paths: Path) -> None:
    """Raise, before rows are spent on it, if something could not be written for want of a folder."""
    for path in paths:
        if not path.parent.is_dir():
            raise FileError("nothing can be written there", f"{path.parent} is no folder")


def distinct(*paths: Path) -> None:
    """Raise before one file is written over another, which may be a secret."""
    real = [os.path.realpath(path) for path in paths]
    for index, path in enumerate(real):
        if path in real[:index]:
            raise UsageError("wrong usage", f"{paths[index]} is named for two things")


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


def import_model(path: Path, semantics: str | None, bars: ProgressBars, watch: Stopwatch, private: PrivateForm | None = None) -> Model:
    """The model in a file."""
    bars("import", 0.0)
    with watch.step("import"):
        return load_model(path, semantics, private)


def reopened(path: Path, secret: ModelSecretFile, bars: ProgressBars, watch: Stopwatch) -> tuple[Model, ProvingKey]:
    """A private model and its commitment, as it was when the secret was made."""
    compiled = secret.read().compiled
    bars("import", 0.0)
    with watch.step("import"):
        model = load_model(path, compiled.semantics, compiled.form, compiled.name)
    bars("commit", 0.0)
    with watch.step("commit"):
        return model, reopen_model(model, secret)


def private_form(arguments: argparse.Namespace) -> PrivateForm | None:
    """The form that `--private` and `--bound` ask for: a bound for all layers, or one for each."""
    bounds = arguments.bound
    if not arguments.private:
        if bounds is not None:
            raise UsageError("wrong usage", "--bound is for private models", "add --private")
        return None
    return PrivateForm(bounds[0] if bounds is not None and len(bounds) == 1 else bounds)


def _committed(arguments: argparse.Namespace, watch: Stopwatch) -> tuple[Model, ProvingKey]:
    private = private_form(arguments)
    if private is not None and (arguments.weights != "committed" or arguments.mode != "zk"):
        raise UsageError("wrong usage", "private weights are committed, and their proofs are zero-knowledge")
    with ProgressBars() as bars:
        model = import_model(arguments.model, arguments.semantics, bars, watch, private)
        if model.is_private and private is None:
            raise UsageError("wrong usage", f"the program in {arguments.model} is private", "add --private")
        bars("commit", 0.0)
        with watch.step("commit"):
            return model, commit_model(model, arguments.weights, arguments.security, arguments.mode)


def show_forecast(key: ProvingKey) -> str:
    """What a proof will cost, for people."""
    cost = forecast(key.verifying_key.describe())
    figures = f"{show_time(cost['prove_ms'])} on one core, {show_size(cost['memory_bytes'])} of memory"
    return f"forecast   about {figures}; a proof of {show_size(cost['proof_bytes'])}"
