"""Verification beside running the same model again: by our executor, by the exact reference kernels, by LiteRT's optimised ones.

Writes a table of medians. Every runtime runs on one thread, in a process that has the model loaded and has run it before; so does our executor.
Verification is that of the command line, a fresh process with the key in a file. Outputs of exact kernels are compared with ours.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches.steps import cpu, medians, run
from nexus_edge.proofs.model import Model
from tests.support.oracle import Oracle, Refused
from tests.support.oracle_env import Unavailable

RUNTIMES = {"tflm": "TFLM", "litert-2.3-ref": "LiteRT 2.3, reference", "litert-2.3": "LiteRT 2.3, optimised"}
EXACT = ("tflm",)
"""Runtimes with the semantics that models are imported with."""
WARM = 3
"""Runs that do not count: first touches of memory."""


def main() -> int:
    """Measure every model and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--runs", type=int, default=15, help="runs of each step; the median counts (default: 15)")
    parser.add_argument("--out", type=Path, help="where to write the table (default: standard output)")
    arguments = parser.parse_args()
    oracles = {name: _oracle(name) for name in RUNTIMES}
    lines = [
        f"# Verification beside running again\n\n{cpu()}, {os.cpu_count()} cores; one thread, milliseconds, medians of {arguments.runs} runs. "
        "See [README](README.md).\n",
        f"| model | verify | our executor | {' | '.join(RUNTIMES.values())} | the same output |",
        f"|---|{'--:|' * (len(RUNTIMES) + 2)}--:|",
    ]
    for model in arguments.models:
        print(model.name, file=sys.stderr, flush=True)
        lines.append(_row(model, arguments.runs, oracles))
    for oracle in oracles.values():
        if oracle is not None:
            oracle.close()
    text = "\n".join(lines) + "\n"
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        arguments.out.write_text(text)
    return 0


def _oracle(name: str) -> Oracle | None:
    try:
        return Oracle(name)
    except Unavailable as why:
        print(f"{name} is left out: {why}", file=sys.stderr)
        return None


def _row(path: Path, runs: int, oracles: dict[str, Oracle | None]) -> str:
    file = path.read_bytes()
    model = Model.from_tflite(file, path.stem)
    generator = np.random.default_rng(1)
    inputs: list[NDArray[Any]] = []
    for port in model.inputs:
        limits = np.iinfo(port.dtype)
        inputs.append(generator.integers(limits.min, limits.max + 1, (WARM + runs, *port.shape)).astype(port.dtype))
    seconds, outputs = [], []
    for n in range(WARM + runs):
        started = time.perf_counter()
        outputs.append(model.run([array[n] for array in inputs], threads=1))
        seconds.append(time.perf_counter() - started)
    figures = [f"{_verification(path, inputs, runs):.2f}", _milliseconds(seconds)]
    agreed = []
    for name, oracle in oracles.items():
        try:
            theirs, times = oracle.timed(file, inputs) if oracle is not None else ([], None)
        except Refused:
            theirs, times = [], None
        figures.append("-" if times is None else _milliseconds(times))
        if name in EXACT and times is not None:
            agreed = [np.array_equal(theirs[i][n], ours) for n, output in enumerate(outputs) for i, ours in enumerate(output)]
    same = f"{sum(agreed)} of {len(agreed)}" if agreed else "-"
    return f"| {path.stem} | {' | '.join(figures)} | {same} |"


def _milliseconds(seconds: Sequence[float] | NDArray[np.float64]) -> str:
    return f"{1e3 * median(seconds[WARM:]):.2f}"


def _verification(path: Path, inputs: Sequence[NDArray[Any]], runs: int) -> float:
    """Median milliseconds of one zero-knowledge verification."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = Model.from_tflite(path.read_bytes(), path.stem)
        with (place / "x").open("wb") as opened:
            if len(inputs) == 1:
                np.save(opened, inputs[0][0])
            else:
                np.savez(opened, allow_pickle=False, **{port.name: array[0] for port, array in zip(model.inputs, inputs, strict=True)})
        run("model", "commit", path, "--key", place / "vk")
        run("prove", "--model", path, "--input", place / "x", "--output", place / "y", "--proof", place / "p")
        return medians([run("verify", "--key", place / "vk", "--proof", place / "p") for _ in range(runs)], ("verify_ms",))["verify_ms"]


if __name__ == "__main__":
    sys.exit(main())
