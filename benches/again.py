"""Proofs and verifications of one process, one after the other: what an agent or a service pays that has made a proof before.

The modes take turns, so that what else the machine does is the same for both. Run as `python -m benches.again MODEL INPUT RUNS THREADS WEIGHTS MODE...`;
prints the milliseconds of every run but the first, by mode. Models whose proof takes less than a tenth of a second are proved ten times as often.
"""

import json
import sys
import time
from pathlib import Path
from typing import cast

from nexus_edge.proofs import commit_model, load_model, prove, verify
from nexus_edge.proofs.arrays import read_tensors
from nexus_edge.types import ProofMode, WeightsMode

SHORT_S = 0.1
OFTEN = 10


def main() -> None:
    """Measure, and print."""
    path, given, runs, threads, weights, *modes = sys.argv[1:]
    model = load_model(Path(path))
    keys = {mode: commit_model(model, weights=cast(WeightsMode, weights), mode=cast(ProofMode, mode)) for mode in modes}
    inputs = read_tensors(Path(given), model.inputs, "input")
    took: dict[str, dict[str, list[float]]] = {mode: {"prove_ms": [], "verify_ms": []} for mode in modes}
    began, rounds, done = time.perf_counter(), int(runs) + 1, 0
    while done < rounds:
        for mode, key in keys.items():
            started = time.perf_counter()
            proved = prove(key, inputs, threads=int(threads))
            middle = time.perf_counter()
            verify(key.verifying_key, proved.proof)
            took[mode]["prove_ms"].append(1e3 * (middle - started))
            took[mode]["verify_ms"].append(1e3 * (time.perf_counter() - middle))
        done += 1
        if done == 2 and time.perf_counter() - began < 2 * SHORT_S * len(keys):
            rounds *= OFTEN
    print(json.dumps({mode: {name: times[1:] for name, times in figures.items()} for mode, figures in took.items()}))


if __name__ == "__main__":
    main()
