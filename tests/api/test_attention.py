"""What needs an owner's eyes: each line comes from what really happened to an agent, and goes when it is over."""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nexus_edge.agent import Agent
from nexus_edge.api.models import AttentionView
from nexus_edge.commands.views import _reach
from nexus_edge.identity import short_id
from nexus_edge.market.jobs import Job, Phase
from nexus_edge.market.running import Answer
from tests.support.couples import BIRCH, couple, done, submitted

pytestmark = pytest.mark.asyncio
BIRCH_NAME = f"birch {short_id(BIRCH.id)}"


async def attention(agent: Agent) -> list[AttentionView]:
    return list((await agent.administration.snapshot()).attention)


async def asked(alder: Agent, deadline_ms: int) -> Job:
    """A job, to its end."""
    return await done(alder, await submitted(alder, deadline_ms))


async def test_nothing_needs_anybody_while_all_is_well(tmp_path: Path) -> None:
    async with couple(tmp_path) as (alder, birch):
        assert (await asked(alder, 60_000)).phase is Phase.SETTLED
        assert await attention(alder) == await attention(birch) == []
        today = (await birch.administration.snapshot()).today
        assert (today.proved, today.verified_by_peers) == (1, 1)


async def test_a_false_proof_and_a_job_that_came_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with couple(tmp_path) as (alder, birch):
        honest = birch.workshop.prove

        async def lie(order: Any, progress: Callable[[str, int], None]) -> Answer:
            answer = await honest(order, progress)
            return replace(answer, proof=answer.proof[:-1] + bytes([answer.proof[-1] ^ 1]))

        monkeypatch.setattr(birch.workshop, "prove", lie)
        job = await asked(alder, 4000)
        assert job.phase is Phase.FAILED
        (line,) = await attention(alder)
        assert (line.level, line.about) == ("error", job.id.hex())
        assert line.text.startswith("false proof from birch: ")
        assert "nothing was paid" in line.text
        # Nobody is left who may have the next one.
        other = await asked(alder, 1500)
        lines = {line.level: line for line in await attention(alder)}
        assert (lines["warning"].about, "failed: no worker in time: 1 excluded for a false proof" in lines["warning"].text) == (
            other.id.hex(),
            True,
        ), lines
        (peer,) = await alder.administration.peers()
        assert peer.state == "excluded"


async def test_a_ledger_that_is_damaged(tmp_path: Path) -> None:
    async with couple(tmp_path) as (alder, birch):
        await asked(alder, 60_000)
        with sqlite3.connect(tmp_path / "birch" / "ledger" / "ledger.sqlite") as database:
            database.execute("UPDATE objects SET sig = zeroblob(64) WHERE t = 'entry'")
        database.close()
        assert not (await birch.administration.ledger()).integrity.sound
        (line,) = await attention(birch)
        assert (line.level, line.about, line.text.startswith("the ledger: ")) == ("error", "ledger", True)


async def test_a_peer_that_cannot_reach_us_or_has_another_clock(tmp_path: Path) -> None:
    async with couple(tmp_path) as (alder, _):
        alder.directory.report_mutual(BIRCH.id, False, "no answer within 3 s")
        (line,) = await attention(alder)
        assert (
            line.text == f"{BIRCH_NAME} answers us but cannot reach us (no answer within 3 s). It can work for us, we cannot work for it."
        )
        alder.directory.report_mutual(BIRCH.id, True)
        assert await attention(alder) == []
        for skew_ms, said, column in ((7000, "7.00 s ahead of", "+7"), (-90_000, "1:30 behind", "-90")):
            alder.directory.report_success(BIRCH.id, 1.0, skew_ms=skew_ms)
            (line,) = await attention(alder)
            assert (line.level, line.text) == ("warning", f"the clock of {BIRCH_NAME} is {said} ours.")
            (peer,) = await alder.administration.peers()
            assert (peer.skew_ms, _reach(peer)) == (skew_ms, f"⇄ both, clock {column} s")
        alder.directory.report_success(BIRCH.id, 1.0, skew_ms=4000)
        assert await attention(alder) == []
        (peer,) = await alder.administration.peers()
        assert _reach(peer) == "⇄ both"


async def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who watches a fleet sees it before a job is lost to it."""
    async with couple(tmp_path) as (alder, _):
        real = shutil.disk_usage
        monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=3 << 20))
        snapshot = await alder.administration.snapshot()
        assert (snapshot.node.state, "3.0 MiB are left" in snapshot.node.why) == ("degraded", True), snapshot.node
        (line,) = snapshot.attention
        assert (line.level, line.about) == ("error", "ledger")
        monkeypatch.undo()
        snapshot = await alder.administration.snapshot()
        assert (snapshot.node.state, snapshot.attention) == ("ready", ())
