"""What two whole agents show of themselves and of each other."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nexus_edge.agent import Agent
from nexus_edge.api.models import JobView
from nexus_edge.commands.views import _job, status_lines
from nexus_edge.market.jobs import Phase
from nexus_edge.market.running import Answer, Order
from tests.support.couples import couple, submitted

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]


class Held:
    """The worker's own prover, stopped after the first phase until it is let go."""

    def __init__(self, agent: Agent) -> None:
        self.go = asyncio.Event()
        self._prove = agent.workshop.prove
        agent.workshop.prove = self.prove  # type: ignore[method-assign]

    async def prove(self, order: Order, progress: Callable[[str, int], None]) -> Answer:
        progress("execute", 0)
        progress("commit", 0)
        await self.go.wait()
        return await self._prove(order, progress)


async def the_job(agent: Agent, holds: Callable[[JobView], Any]) -> JobView:
    """Its newest job, once that is so."""
    async with asyncio.timeout(60):
        while True:
            job = (await agent.administration.jobs())[0]
            if holds(job):
                return job
            await asyncio.sleep(0.05)


async def test_both_sides_see_how_long_a_job_still_takes(tmp_path: Path) -> None:
    async with couple(tmp_path, children=1) as (alder, birch):
        idle = (await birch.administration.snapshot()).work
        assert idle.next_free_ms == 0
        first = await submitted(alder)
        assert (await alder.requester.wait(first.id, 60)).phase is Phase.SETTLED
        assert (await the_job(alder, lambda job: job.state == "verified")).eta_ms is None
        held = Held(birch)
        await submitted(alder)
        theirs = await the_job(birch, lambda job: job.phase == "commit" and job.eta_ms)
        ours = await the_job(alder, lambda job: job.phase == "commit" and job.eta_ms)
        for job in (ours, theirs):
            assert re.fullmatch(r"\d+:\d\d", _job(job)[5]), job
        snapshot = await birch.administration.snapshot()
        assert snapshot.work.next_free_ms
        assert any(re.search(r"1 running, 0 waiting, next free in \d+:\d\d", line) for line in status_lines(snapshot))
        birch.worker.letting.draining = True
        assert (await birch.administration.snapshot()).work.next_free_ms is None
        held.go.set()
        assert (await the_job(alder, lambda job: job.settled)).eta_ms is None
        assert (await the_job(birch, lambda job: job.settled)).eta_ms is None


async def test_how_busy_a_device_is_is_sampled(tmp_path: Path) -> None:
    async with couple(tmp_path) as (_, birch):
        assert all(0 <= one <= 1 for one in birch.load.samples)
        async with asyncio.timeout(60):
            while len(birch.load.samples) < 2:
                await asyncio.sleep(0.1)
        samples = birch.load.samples
        for device in (await birch.administration.snapshot()).devices:
            assert device.history[: len(samples)] == samples
            assert device.load == device.history[-1]
