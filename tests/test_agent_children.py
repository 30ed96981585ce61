"""Children that die under whole agents: their job is tried again or fails with a reason, and nothing else is lost."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from nexus_edge.agent import Agent
from nexus_edge.market.jobs import Job, Outcome, Phase
from nexus_edge.market.leases import LeaseState, State
from nexus_edge.market.running import TRIES
from tests.support.couples import couple, done, submitted

pytestmark = pytest.mark.asyncio


async def until(holds: Callable[[], bool], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


def children(agent: Agent) -> set[int]:
    """The processes that work for it."""
    return {pid for pid in agent.pool.pids.values() if pid is not None}


def lease_of(birch: Agent, job: Job) -> LeaseState | None:
    return next((lease for lease in birch.worker.leases if lease.job == job.id), None)


@asynccontextmanager
async def stopped(pids: set[int]) -> AsyncIterator[None]:
    """They do nothing meanwhile, whatever they are asked."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def begun(birch: Agent, job: Job) -> None:
    """A child has the job."""

    def is_so() -> bool:
        lease = lease_of(birch, job)
        return lease is not None and birch.worker.book.work[lease.id].cancel is not None and birch.pool.busy > 0

    await until(is_so)


async def test_a_child_that_is_killed_costs_nobody_else_anything_and_its_job_is_tried_again(tmp_path: Path) -> None:
    async with couple(tmp_path, children=2, threads=1) as (alder, birch):
        await done(alder, await submitted(alder))
        await birch.pool.warm()
        both = children(birch)
        assert len(both) == 2
        async with stopped(both):
            first = await submitted(alder)
            await begun(birch, first)
            second = await submitted(alder)
            await until(lambda: birch.pool.busy == 2)
            victim = both.pop()
            os.kill(victim, signal.SIGKILL)
            # The one that is left, and the one that comes in the victim's place.
            await until(lambda: len(children(birch) - {victim}) == 2)
        ended = [await done(alder, job) for job in (first, second)]
        assert [job.phase for job in ended] == [Phase.SETTLED, Phase.SETTLED]
        assert [len(job.attempts) for job in ended] == [1, 1], "its worker tried again, and told nobody"
        assert victim not in children(birch)


async def test_a_job_whose_children_die_each_time_fails_with_the_reason_and_the_agent_goes_on(tmp_path: Path) -> None:
    async with couple(tmp_path, children=1, threads=1) as (alder, birch):
        await done(alder, await submitted(alder))
        dead: set[int] = set()
        job = None
        for _ in range(TRIES):
            await until(lambda: bool(children(birch) - dead))
            (pid,) = children(birch) - dead
            os.kill(pid, signal.SIGSTOP)
            job = job or await submitted(alder)
            await begun(birch, job)
            dead.add(pid)
            os.kill(pid, signal.SIGKILL)
        assert job is not None
        first = lease_of(birch, job)
        assert first is not None
        await until(lambda: birch.worker.leases[first.id].state is State.FAILED)
        assert "signal 9 (SIGKILL)" in birch.worker.leases[first.id].reason
        ended = await done(alder, job)
        assert ended.attempts[0].outcome is Outcome.FAILED
        assert "signal 9 (SIGKILL)" in ended.attempts[0].reason
        assert ended.phase is Phase.SETTLED, "the next attempt finds a living child"
        book = await birch.ledger.read(lambda reader: reader.book(alder.key.id))
        assert book.reserved_in == 0


async def test_a_child_that_takes_too_much_fails_its_job_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with couple(tmp_path, children=1, threads=1) as (alder, birch):
        await done(alder, await submitted(alder))
        for pid in children(birch):  # the next one has not kept memory of an earlier job
            os.kill(pid, signal.SIGKILL)
        monkeypatch.setattr("nexus_edge.compute.library.LIMIT_PERCENT", 0)
        monkeypatch.setattr("nexus_edge.compute.library.LIMIT_BYTES", 6 << 20)
        job = await submitted(alder, 4000)
        ended = await done(alder, job)
        assert ended.phase is Phase.FAILED
        lease = lease_of(birch, job)
        assert lease is not None
        numbers = "; forecast "
        assert (lease.state, numbers in lease.reason, lease.reason.endswith("allowed 6 MiB")) == (State.FAILED, True, True), lease.reason
        assert ended.attempts[0].reason == f"failed: {lease.reason}"
        shown = json.loads((await alder.administration.job(job.id.hex())).model_dump_json())
        assert numbers in shown["reason"]
        monkeypatch.undo()
        assert (await done(alder, await submitted(alder))).phase is Phase.SETTLED
