"""Whether a worker has room for one more job: memory and queue."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nexus_edge.types import Bytes
from nexus_edge.wire.limits import MIB, QUEUED_JOBS, QUEUED_MS
from nexus_edge.wire.refusals import Code, Refusal

MARGIN_PERCENT: Final = 125
"""Of a forecast: what a prover was seen to need above its forecast on other machines."""
RESERVE: Final = Bytes(512 * MIB)
"""For the agent itself and for the rest of the machine."""


@dataclass(frozen=True)
class Demand:
    """What a job will take: forecasts of memory and of time on its device."""

    memory: Bytes
    ms: int


def memory_needed(jobs: Iterable[Demand], learned_permille: int = 1000) -> Bytes:
    """What all admitted jobs may take; `learned_permille` is measured peak over forecast, as far as it was above one."""
    forecast = sum(job.memory for job in jobs)
    return Bytes(-(-forecast * MARGIN_PERCENT * max(1000, learned_permille) // 100_000) + RESERVE)


def check_memory(jobs: Iterable[Demand], available: Bytes, learned_permille: int = 1000) -> None:
    """Raise a `memory` refusal with both numbers unless the jobs fit. `available` is what the machine and the control group leave."""
    needed = memory_needed(jobs, learned_permille)
    if needed > available:
        raise Refusal(Code.MEMORY, f"needs {_mib(needed)} MiB with what is running, has {available // MIB} MiB")


def check_queue(waiting: Iterable[Demand], slots: int = 1, *, jobs: int = QUEUED_JOBS, ms: int = QUEUED_MS) -> None:
    """Raise a `busy` refusal if so many jobs or so much work waits: it says when half of it will be done."""
    queue = list(waiting)
    backlog = backlog_ms(queue, slots)
    if len(queue) >= jobs or backlog >= ms:
        raise Refusal(Code.BUSY, f"{len(queue)} jobs wait, {backlog // 1000} s of work", retry_ms=max(1000, backlog // 2))


def backlog_ms(waiting: Iterable[Demand], slots: int = 1) -> int:
    """How long the queue will take on so many slots, in milliseconds."""
    return sum(job.ms for job in waiting) // max(1, slots)


def _mib(size: int) -> int:
    return -(-size // MIB)
