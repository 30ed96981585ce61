"""Nodes that work for each other while they are killed at random, and what must hold afterwards."""

import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations

from tests.support.processes import SETTLED, Died, Process

OUTSTANDING = 4
"""Jobs that a node has open at once while it is asked for more."""
SETTLE_S = 180.0


@dataclass
class Tally:
    """What happened."""

    submitted: int = 0
    settled: int = 0
    failed: int = 0
    kills: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=dict)
    """Resident KiB of each node that lived for long, over time."""


def churn(
    nodes: Sequence[Process],
    victims: Sequence[Process],
    *,
    kills: int | None,
    every_s: tuple[float, float],
    jobs: int,
    within_s: float,
    seed: int,
) -> Tally:
    """Keep all nodes busy and kill victims, until there were enough of both or the time is up; then let everything settle, and check it.

    `kills` None: for as long as jobs are handed out.
    """
    chance = random.Random(seed)
    tally = Tally()
    began = time.monotonic()
    next_kill = began + chance.uniform(*every_s)
    least = kills or 0
    while (tally.kills < least or tally.submitted < jobs) and time.monotonic() - began < within_s:
        now = time.monotonic()
        if (kills is None or tally.kills < kills) and now >= next_kill:
            victim = chance.choice(victims)
            victim.kill()
            victim.start()
            tally.kills += 1
            next_kill = time.monotonic() + chance.uniform(*every_s)
        for node in nodes:
            with contextlib.suppress(Died):
                open_jobs = node.ask("open")["open"]
                if open_jobs < OUTSTANDING and (tally.submitted < jobs or tally.kills < least):
                    tally.submitted += len(node.ask("submit", count=OUTSTANDING - open_jobs, deadline_ms=120_000)["jobs"])
            tally.memory.setdefault(node.name, []).append(node.memory())
        time.sleep(0.05)
    for node in nodes:
        if not node.is_alive:
            node.start()
    check(nodes, tally)
    tally.seconds = time.monotonic() - began
    return tally


def check(nodes: Sequence[Process], tally: Tally) -> None:
    """Every job has its receipt or a reason, nothing is paid twice, books agree, and no ledger contradicts itself."""
    for node in nodes:
        assert node.ask("settle", timeout_s=SETTLE_S, within_s=4 * SETTLE_S) == SETTLED, f"{node.name}:\n{node.said()}"
    states = {node.id: node.ask("state") for node in nodes}
    for state in states.values():
        assert state["faults"] == []
        for job in state["jobs"]:
            assert job["phase"] in ("settled", "failed", "cancelled"), job
            assert job["phase"] == "settled" or job["reason"], job
            assert (job["paid"] > 0) == (job["phase"] == "settled"), job
        tally.settled += sum(job["phase"] == "settled" for job in state["jobs"])
        failed = [job["reason"] for job in state["jobs"] if job["phase"] == "failed"]
        tally.failed += len(failed)
        tally.reasons += failed
    for one, other in permutations(nodes, 2):
        book, mirror = (states[mine.id]["books"].get(its.id) for mine, its in ((one, other), (other, one)))
        if book is None or mirror is None:
            assert book is None or book["out"] == book["in"] == 0
            continue
        assert book["out"] == mirror["in"], (one.name, other.name)
    for state in states.values():
        paid = sum(job["paid"] for job in state["jobs"])
        assert paid == sum(book["out"] for book in state["books"].values())


def assert_flat(samples: Sequence[int], *, growth_kib: int) -> None:
    """Memory in the last third is not above that of the second by more than so much."""
    third = len(samples) // 3
    early, late = sorted(samples[third : 2 * third]), sorted(samples[2 * third :])
    assert late[len(late) // 2] - early[len(early) // 2] <= growth_kib, (early[len(early) // 2], late[len(late) // 2])
