"""Proofs and verifications of one process, one after the other: what an agent or a service pays that has made a proof before.

Run as `python -m benches.again MODEL INPUT RUNS THREADS MODE WEIGHTS`; prints one object with the milliseconds of every run but the first.
"""

import json
import sys
import time
from pathlib import Path
from typing import cast

from nexus_edge.proofs import commit_model, load_model, prove, verify
from nexus_edge.proofs.arrays import read_tensors
from nexus_edge.types import ProofMode, WeightsMode


def main() -> None:
    """Measure, and print."""
    path, given, runs, threads, mode, weights = sys.argv[1:]
    model = load_model(Path(path))
    key = commit_model(model, weights=cast(WeightsMode, weights), mode=cast(ProofMode, mode))
    inputs = read_tensors(Path(given), model.inputs, "input")
    took: dict[str, list[float]] = {"prove_ms": [], "verify_ms": []}
    for _ in range(int(runs) + 1):
        started = time.perf_counter()
        proved = prove(key, inputs, threads=int(threads))
        middle = time.perf_counter()
        verify(key.verifying_key, proved.proof)
        took["prove_ms"].append(1e3 * (middle - started))
        took["verify_ms"].append(1e3 * (time.perf_counter() - middle))
    print(json.dumps({name: times[1:] for name, times in took.items()}))


if __name__ == "__main__":
    main()
