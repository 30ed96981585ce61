"""Measure agents in processes of their own that trade real, proved jobs: run as `python -m benches.mesh`. See README.md here."""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benches.steps import cpu
from tests.support.churn import Tally, churn
from tests.support.processes import Process

CREDIT = 1_000_000_000_000
LENT = [CREDIT] * 5
"""Of every kind, for all: credit is not what is measured."""
NAMES = ("alder", "birch", "cedar")


def main() -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100, help="jobs timed one after the other (default: 100)")
    parser.add_argument("--rate-jobs", type=int, default=300, help="jobs for the rate (default: 300)")
    parser.add_argument("--starts", type=int, default=10, help="starts for the discovery time (default: 10)")
    parser.add_argument("--churn-jobs", type=int, default=0, help="jobs between three agents of which two are killed every few seconds")
    parser.add_argument("--kills", type=int, default=0, help="random kills of a busy pair")
    parser.add_argument("--within", type=float, default=1800, help="seconds that churn and kills may take each (default: 1800)")
    parser.add_argument("--out", type=Path, help="where to write the tables (default: standard output)")
    arguments = parser.parse_args()
    sections = [conditions(), one_job(arguments.jobs, arguments.rate_jobs)]
    if arguments.starts:
        sections.append(discovery(arguments.starts))
    if arguments.churn_jobs:
        sections.append(under_churn(arguments.churn_jobs, arguments.within))
    if arguments.kills:
        sections.append(under_kills(arguments.kills, arguments.within))
    text = "\n\n".join(sections) + "\n"
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        arguments.out.write_text(text)
    return 0


def conditions() -> str:
    """Where and how."""
    one, most = disk()
    return (
        f"# The mesh\n\n{cpu()}, {os.cpu_count()} cores that all agents and their children share; Python {platform.python_version()}; model digits, "
        f"parameter set zk-100. One flush of a file here: {one:.1f} ms in the median, {most:.1f} ms in the 99th percentile. Load when the run began: "
        f"{os.getloadavg()[0]:.1f} processes that wanted a core. See [README](README.md)."
    )


def one_job(jobs: int, rate_jobs: int) -> str:
    """Two agents: a job alone, jobs at once, commits, loop lag, memory."""
    with agents(2) as (alder, birch):
        alder.ask("times", count=5, within_s=300)  # loads what is loaded once, and makes the worker proven
        for node in (alder, birch):
            node.ask("watch")
        times = alder.ask("times", count=jobs, within_s=60 * jobs)
        quiet = [node.ask("measured") for node in (alder, birch)]
        bare = birch.ask("bare", count=jobs, within_s=60 * jobs)
        birch.ask("measured")
        rates = [(at_once, alder.ask("rate", count=rate_jobs, at_once=at_once, within_s=60 * rate_jobs)) for at_once in (1, 4, 16)]
        busy = [node.ask("measured") for node in (alder, birch)]
        memory = [node.memory() / 1024 for node in (alder, birch)]
    answered, settled, verify = zip(*times, strict=True)
    whole, inside = zip(*bare, strict=True)
    commits = sum(len(one["commits"]) for one in quiet) / jobs
    rows = ["| | median ms | least ms | p99 ms |", "|---|--:|--:|--:|"]
    rows += [
        row("a job, from order to verified answer", answered),
        row("a job, from order to acknowledged payment", settled),
        row("run and proof, as the prover measures them", inside),
        row("the same task in its child: with the child's own verification and the way there", whole),
        row("verification by the requester", verify),
        f"| overhead: verified answer less run and proof | {median(answered) - median(inside):.1f} | {min(answered) - min(inside):.1f} | |",
        f"| overhead: verified answer less the task and the requester's verification | {median(answered) - median(whole) - median(verify):.1f} "
        f"| {min(answered) - min(whole) - min(verify):.1f} | |",
        row("a commit, jobs one at a time", [value for one in quiet for value in one["commits"]]),
        row("a commit, up to 16 jobs at once", [value for one in busy for value in one["commits"]]),
        row("loop lag, jobs one at a time", [value for one in quiet for value in one["lags"]]),
        row("loop lag, up to 16 jobs at once", [value for one in busy for value in one["lags"]]),
    ]
    rate = ["| jobs open at once | jobs | settled | jobs per second |", "|--:|--:|--:|--:|"]
    rate += [f"| {at_once} | {rate_jobs} | {one['settled']} | {one['settled'] / one['seconds']:.1f} |" for at_once, one in rates]
    return (
        f"## Two agents, {jobs} jobs one after the other\n\n" + "\n".join(rows)
        + f"\n\n{commits:.1f} commits a job, both sides together. Resident afterwards, without the child: requester {memory[0]:.0f} MB, worker {memory[1]:.0f} MB."
        + "\n\n## Jobs at once\n\n" + "\n".join(rate)
    )  # fmt: skip


def discovery(starts: int) -> str:
    """An agent starts beside one that runs, and finds it by multicast DNS, or at an address from its settings."""
    rows = ["| from start of the agent to a peer that is up | median ms | least ms | p99 ms |", "|---|--:|--:|--:|"]
    for title, mdns in (("multicast DNS, on one machine", True), ("an address in its settings", False)):
        with tempfile.TemporaryDirectory() as folder:
            alder, birch = (Process(Path(folder), name, mdns=mdns, host="" if mdns else "127.0.0.1") for name in NAMES[:2])
            try:
                birch.start()
                alder.peers = [] if mdns else [birch]
                took = []
                for _ in range(starts):
                    began = time.perf_counter()
                    alder.start()
                    up = alder.ask("up")["at"]
                    if up is None:
                        raise SystemExit(f"no peer is found by {title}")
                    took.append(1000 * (up - began))
                    alder.kill()
            finally:
                alder.close()
                birch.close()
        rows.append(row(title, took))
    return "## Discovery\n\n" + "\n".join(rows) + "\n\nWith everything between: opening the ledger and the models, TLS, record and ping."


def under_churn(jobs: int, within_s: float) -> str:
    """Three agents work for each other, two of which are killed every few seconds."""
    with agents(3) as nodes:
        tally = churn(nodes, nodes[1:], kills=None, every_s=(1.0, 3.0), jobs=jobs, within_s=within_s, seed=3)
        samples = tally.memory[NAMES[0]]
    third = max(1, len(samples) // 3)
    memory = f" The agent that was not killed: {median(samples[third : 2 * third]) / 1024:.0f} MB in the middle third, {median(samples[2 * third :]) / 1024:.0f} MB in the last."
    return "## Three agents under churn\n\n" + told(tally) + memory


def under_kills(kills: int, within_s: float) -> str:
    """A busy pair in which either is killed at random moments."""
    with agents(2) as nodes:
        tally = churn(nodes, nodes, kills=kills, every_s=(0.0, 0.6), jobs=1, within_s=within_s, seed=4)
    return "## Random kills of a busy pair\n\n" + told(tally)


def told(tally: Tally) -> str:
    """What happened, in words: `churn` has checked that nothing is wrong."""
    reasons = ", ".join(f"{tally.reasons.count(reason)} of {reason!r}" for reason in sorted(set(tally.reasons))[:8]) or "none"
    return (
        f"{tally.submitted} jobs, {tally.kills} kills by SIGKILL, {tally.seconds:.0f} s: {tally.settled} settled, {tally.failed} failed with a reason ({reasons}), none lost, "
        "none paid twice; all books agree and all ledgers are sound."
    )  # fmt: skip


@contextmanager
def agents(count: int) -> Iterator[list[Process]]:
    """Agents that know each other's addresses."""
    with tempfile.TemporaryDirectory() as folder:
        nodes = [Process(Path(folder), name, credit=LENT) for name in NAMES[:count]]
        try:
            for node in nodes:
                node.start()
            for node in nodes:
                node.peers = [other for other in nodes if other is not node]
                node.kill()
                node.start()
            for node in nodes:
                node.ask("up")
            yield nodes
        finally:
            for node in nodes:
                node.close()


def row(title: str, values: Sequence[float]) -> str:
    """One line of a table."""
    ordered = sorted(values)
    return f"| {title} | {median(ordered):.1f} | {ordered[0]:.1f} | {ordered[int(0.99 * (len(ordered) - 1))]:.1f} |"


def disk() -> tuple[float, float]:
    """Milliseconds to flush a page of a file: median and 99th percentile. What an agent promises waits for it."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(200):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(1000 * (time.perf_counter() - began))
    took.sort()
    return median(took), took[197]


if __name__ == "__main__":
    sys.exit(main())
