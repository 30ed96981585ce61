"""One step of the command line in a process of its own, and medians of many."""

import json
import mmap
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any


def run(*words: str | Path) -> dict[str, Any]:
    """One command in a process of its own."""
    command = [sys.executable, "-m", "nexus_edge", *map(str, words), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def repeated(model: Path, given: Path, runs: int, threads: int, weights: str, modes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of proofs and verifications that one process makes in turn, by mode: medians, and under `least_...` the least."""
    words = (model, given, runs, threads, weights, *modes)
    command = [sys.executable, "-m", "benches.again", *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, dict[str, float]] = {}
    for mode, figures in json.loads(done.stdout).items():
        found[mode] = {name: median(times) for name, times in figures.items()} | {
            f"least_{name}": min(times) for name, times in figures.items()
        }
    return found


def medians(results: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """The median of each figure."""
    return {name: median(result[name] for result in results) for name in names}


def warm(size: int) -> None:
    """Touch so much memory and give it back, before a process is timed that takes it.

    The host of a virtual machine takes free memory back after two seconds; what it then needs to find it again is no work of the prover.
    """
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1


def cpu() -> str:
    """What this machine calls its processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
