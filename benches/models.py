"""Prove and verify models through the command line, in fresh processes, and write tables of medians. See README.md here."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

PHASE_UNITS = {
    # What a phase's work is proportional to, and the cost model's nanoseconds for each.
    "commit": ("cells", "23"),
    "lookups": ("lookups", "25-55"),
    "contractions": ("weights", "1.2-16"),
    "opening": ("cells", "8-17"),
}


@dataclass(frozen=True)
class Measured:
    """Medians of one model."""

    name: str
    inspected: dict[str, Any]
    committed: dict[str, Any]
    ran: dict[str, float]
    proved: dict[str, float]
    phases: dict[str, float]
    verified: dict[str, float]


def main() -> int:
    """Measure every model and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--runs", type=int, default=5, help="runs of each step; the median counts (default: 5)")
    parser.add_argument("--weights", choices=("committed", "inside"), default="committed")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="where to write the tables (default: standard output)")
    arguments = parser.parse_args()
    measured = [measure(model, arguments.runs, arguments.weights, arguments.threads) for model in arguments.models]
    text = "\n\n".join((conditions(arguments), summary(measured), phases(measured))) + "\n"
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        arguments.out.write_text(text)
    return 0


def measure(model: Path, runs: int, weights: str, threads: int) -> Measured:
    """All figures of one model. Every proof is verified against its input and output."""
    print(model.name, file=sys.stderr, flush=True)
    options = ["--weights", weights]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        inspected = run("model", "inspect", model, *options)
        write_inputs(place / "x", inspected["inputs"])
        committed = run("model", "commit", model, "--key", place / "vk", *options)
        files: list[str | Path] = ["--input", place / "x", "--output", place / "y"]
        prove: list[str | Path] = ["prove", "--model", model, *files, "--proof", place / "p", "--threads", str(threads), *options]
        proved = [run(*prove) for _ in range(runs)]
        verified = [run("verify", "--key", place / "vk", "--proof", place / "p", *files) for _ in range(runs)]
        ran = [run("infer", "--model", model, "--input", place / "x", "--output", place / "z", "--threads", "1") for _ in range(runs)]
        if (place / "y").read_bytes() != (place / "z").read_bytes():
            raise AssertionError(f"{model}: the proven output is not the executor's")
    return Measured(
        name=inspected["name"],
        inspected=inspected,
        committed=committed,
        ran=medians(ran, ("infer_ms",)),
        proved=medians(proved, ("prove_ms", "proof_bytes", "peak_rss_bytes", "import_ms", "commit_ms")),
        phases=medians([each["phases_ms"] for each in proved], tuple(proved[0]["phases_ms"])),
        verified=medians(verified, ("verify_ms", "key_ms")),
    )


def run(*words: str | Path) -> dict[str, Any]:
    """One command in a process of its own."""
    command = [sys.executable, "-m", "nexus_edge", *map(str, words), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def write_inputs(file: Path, ports: Sequence[dict[str, Any]]) -> None:
    """Uniform values: all of an integer type, [-1, 1) for floats."""
    generator = np.random.default_rng(1)
    arrays: dict[str, NDArray[Any]] = {}
    for port in ports:
        dtype = np.dtype(port["dtype"])
        if dtype.kind == "f":
            arrays[port["name"]] = generator.uniform(-1, 1, port["shape"]).astype(dtype)
        else:
            limits = np.iinfo(dtype)
            arrays[port["name"]] = generator.integers(limits.min, limits.max + 1, port["shape"]).astype(dtype)
    with file.open("wb") as opened:
        if len(ports) == 1:
            np.save(opened, arrays[ports[0]["name"]])
        else:
            np.savez(opened, allow_pickle=False, **arrays)


def medians(results: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """The median of each figure."""
    return {name: median(result[name] for result in results) for name in names}


def conditions(arguments: argparse.Namespace) -> str:
    """What the numbers depend on."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    return (
        f"# Models\n\n{cpu or platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads; medians of {arguments.runs} runs; "
        f"weights {arguments.weights}; plain proofs (not zero-knowledge). See [README](README.md)."
    )


def summary(measured: Sequence[Measured]) -> str:
    """One line a model."""
    lines = [
        "| model | cells | lookups | weights | import ms | commit ms | prove ms | peak MB | proof KB | key KB | key ms | verify ms | run ms | bits |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in measured:
        seen, proved = one.inspected, one.proved
        figures = (
            f"{seen['cells']:,}",
            f"{seen['lookups']:,}",
            f"{seen['weights']:,}",
            f"{proved['import_ms']:.0f}",
            f"{proved['commit_ms']:.1f}",
            f"{proved['prove_ms']:.1f}",
            f"{proved['peak_rss_bytes'] / 1e6:.0f}",
            f"{proved['proof_bytes'] / 1e3:.0f}",
            f"{one.committed['key_bytes'] / 1e3:.1f}",
            f"{one.verified['key_ms']:.1f}",
            f"{one.verified['verify_ms']:.2f}",
            f"{one.ran['infer_ms']:.2f}",
            f"{seen['soundness']['bits']:.1f}",
        )
        lines.append(f"| {one.name} | {' | '.join(figures)} |")
    return "\n".join(lines)


def phases(measured: Sequence[Measured]) -> str:
    """Where the time of a proof goes: milliseconds, and nanoseconds for each unit of work, on all threads together."""
    names = list(dict.fromkeys(name for one in measured for name in one.phases))
    heads = [f"{name} ms" + (f" (ns/{PHASE_UNITS[name][0][:-1]})" if name in PHASE_UNITS else "") for name in names]
    lines = [f"| model | {' | '.join(heads)} |", "|---|" + "--:|" * len(names)]
    for one in measured:
        cells = []
        for name in names:
            ms = one.phases.get(name, 0.0)
            unit = PHASE_UNITS.get(name)
            per = f" ({1e6 * ms / max(1, one.inspected[unit[0]]):.0f})" if unit else ""
            cells.append(f"{ms:.1f}{per}")
        lines.append(f"| {one.name} | {' | '.join(cells)} |")
    model = ", ".join(f"{name} {ns} ns a {unit[:-1]}" for name, (unit, ns) in PHASE_UNITS.items() if ns)
    return "## Phases\n\n" + "\n".join(lines) + f"\n\nThe cost model on one core: {model}."


if __name__ == "__main__":
    sys.exit(main())
