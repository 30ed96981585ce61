"""Prove and verify models through the command line, in fresh processes, and write tables of medians. See README.md here."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches import private
from benches.steps import cpu, medians, repeated, run, warm

PHASE_UNITS = {
    # What a phase's work is proportional to, and the cost model's nanoseconds for each.
    "commit": ("cells", "23"),
    "lookups": ("lookups", "25-55"),
    "contractions": ("weights", "1.2-16"),
    "opening": ("cells", "8-17"),
}


MODES = ("plain", "zk")


@dataclass(frozen=True)
class Measured:
    """Medians of one model in one mode."""

    name: str
    inspected: dict[str, Any]
    committed: dict[str, Any]
    ran: dict[str, float]
    proved: dict[str, float]
    phases: dict[str, float]
    verified: dict[str, float]
    least: dict[str, float]
    again: dict[str, float]


def main() -> int:
    """Measure every model and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--runs", type=int, default=5, help="runs of each step; the median counts (default: 5)")
    parser.add_argument("--weights", choices=("committed", "inside"), default="committed")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--private", nargs="+", type=Path, default=(), metavar="MODEL", help="models to register and to link besides")
    parser.add_argument("--out", type=Path, help="where to write the tables (default: standard output)")
    arguments = parser.parse_args()
    measured = [measure(model, arguments.runs, arguments.weights, arguments.threads) for model in arguments.models]
    zk = [each["zk"] for each in measured]
    tables = [conditions(arguments), summary(zk), modes(measured), phases(zk)]
    if arguments.private:
        tables.append(private.table(arguments.private, arguments.runs, arguments.threads))
    text = "\n\n".join(tables) + "\n"
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        arguments.out.write_text(text)
    return 0


def measure(model: Path, runs: int, weights: str, threads: int) -> dict[str, Measured]:
    """All figures of one model, by mode. Every proof is verified against its input and output."""
    print(model.name, file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        options = {mode: ("--weights", weights, "--mode", mode) for mode in MODES}
        inspected = {mode: run("model", "inspect", model, *options[mode]) for mode in MODES}
        write_inputs(place / "x", inspected["zk"]["inputs"])
        committed = {mode: run("model", "commit", model, "--key", place / f"vk.{mode}", *options[mode]) for mode in MODES}
        proved: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
        verified: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
        files: list[str | Path] = ["--input", place / "x", "--output", place / "y"]
        # In turn, so that what else the machine does is the same for both.
        for _ in range(runs):
            for mode in MODES:
                proof: list[str | Path] = ["--proof", place / f"p.{mode}"]
                warm(inspected[mode]["forecast"]["memory_bytes"] * 5 // 4)
                proved[mode].append(run("prove", "--model", model, *files, *proof, "--threads", str(threads), *options[mode]))
                verified[mode].append(run("verify", "--key", place / f"vk.{mode}", *proof, *files))
        again = repeated(model, place / "x", runs, threads, weights, MODES)
        ran = [run("infer", "--model", model, "--input", place / "x", "--output", place / "z", "--threads", "1") for _ in range(runs)]
        if (place / "y").read_bytes() != (place / "z").read_bytes():
            raise AssertionError(f"{model}: the proven output is not the executor's")
    return {
        mode: Measured(
            name=inspected[mode]["name"],
            inspected=inspected[mode],
            committed=committed[mode],
            ran=medians(ran, ("infer_ms",)),
            proved=medians(proved[mode], ("prove_ms", "proof_bytes", "peak_rss_bytes", "import_ms", "commit_ms")),
            phases=medians([each["phases_ms"] for each in proved[mode]], tuple(proved[mode][0]["phases_ms"])),
            verified=medians(verified[mode], ("verify_ms", "compare_ms", "key_ms")),
            least={
                "prove_ms": min(each["prove_ms"] for each in proved[mode]),
                "verify_ms": min(each["verify_ms"] for each in verified[mode]),
            },
            again=again[mode],
        )
        for mode in MODES
    }


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


def conditions(arguments: argparse.Namespace) -> str:
    """What the numbers depend on."""
    return (
        f"# Models\n\n{cpu()}, {os.cpu_count()} cores, {arguments.threads} threads; medians of {arguments.runs} runs; "
        f"weights {arguments.weights}; zero-knowledge proofs unless said. See [README](README.md)."
    )


def summary(measured: Sequence[Measured]) -> str:
    """One line a model."""
    lines = [
        "| model | cells | lookups | weights | import ms | commit ms | prove ms | prove again ms | peak MB | proof KB | key KB | key ms | verify ms | verify again ms | compare ms | run ms | bits |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
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
            f"{one.again['prove_ms']:.1f}",
            f"{proved['peak_rss_bytes'] / 1e6:.0f}",
            f"{proved['proof_bytes'] / 1e3:.0f}",
            f"{one.committed['key_bytes'] / 1e3:.1f}",
            f"{one.verified['key_ms']:.1f}",
            f"{one.verified['verify_ms']:.2f}",
            f"{one.again['verify_ms']:.2f}",
            f"{one.verified['compare_ms']:.2f}",
            f"{one.ran['infer_ms']:.2f}",
            f"{seen['soundness']['bits']:.1f}",
        )
        lines.append(f"| {one.name} | {' | '.join(figures)} |")
    return "\n".join(lines)


def modes(measured: Sequence[dict[str, Measured]]) -> str:
    """What zero-knowledge costs: the least times of all runs, as medians differ by more between two quiet moments of a shared machine."""
    lines = [
        "| model | prove ms plain | zk | more | first: plain | zk | more | proof KB plain | zk | more | verify ms plain | zk | more |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in measured:
        plain, zk = (each[mode] for mode in MODES)
        (prove, prove_zk), (verify, verify_zk) = ([one.least[name] for one in (plain, zk)] for name in ("prove_ms", "verify_ms"))
        again, again_zk = (one.again["least_prove_ms"] for one in (plain, zk))
        kb, kb_zk = plain.proved["proof_bytes"], zk.proved["proof_bytes"]
        figures = (
            f"{again:.1f} | {again_zk:.1f} | {100 * (again_zk / again - 1):+.1f} %",
            f"{prove:.1f} | {prove_zk:.1f} | {100 * (prove_zk / prove - 1):+.1f} %",
            f"{kb / 1e3:.0f} | {kb_zk / 1e3:.0f} | {(kb_zk - kb) / 1e3:+.0f}",
            f"{verify:.2f} | {verify_zk:.2f} | {verify_zk - verify:+.2f}",
        )
        lines.append(f"| {zk.name} | {' | '.join(figures)} |")
    return (
        "## What zero-knowledge costs\n\nLeast times of all runs: of proofs that one process makes of both modes in turn; and, *first*, of the one proof of a process that the command line starts, with the\npages that it touches for the first time. Verification is of the latter.\n\n"
        + "\n".join(lines)
    )


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
