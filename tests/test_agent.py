"""Whole agents on real sockets: who is seen, and what owners settle between themselves."""

import asyncio
from pathlib import Path

import pytest

from nexus_edge.agent import Agent, Options
from nexus_edge.api.models import DeedKind, DeedRequest
from nexus_edge.identity import NodeKey, format_node_id
from nexus_edge.types import MicroCredits
from tests.support.couples import ALDER, BIRCH, couple

pytestmark = pytest.mark.asyncio


async def deed(agent: Agent, what: DeedKind, peer: NodeKey) -> str | None:
    request = DeedRequest(what=what, peer=format_node_id(peer.id), amount_ucr=MicroCredits(700), about="rent for May")
    return (await agent.administration.deed(request)).entry


async def owed(agent: Agent, peer: NodeKey, amount: int) -> None:
    """Wait until the peer owes it so much."""
    async with asyncio.timeout(10):
        while (await agent.ledger.read(lambda reader: reader.book(peer.id))).owed != amount:
            await asyncio.sleep(0.01)


async def test_one_who_dials_us_is_a_peer_of_ours(tmp_path: Path) -> None:
    async with couple(tmp_path) as (alder, birch):
        (seen,) = birch.directory.snapshot()
        assert (seen.id, seen.found_by.value, seen.reach) == (ALDER.id, "caller", "both")
        assert [address.endpoint for address in seen.addresses] == [("127.0.0.1", alder.server.port)]


async def test_a_peer_of_another_mesh_is_known_as_one(tmp_path: Path) -> None:
    birch = Agent(BIRCH, Options(tmp_path / "birch", host="127.0.0.1", mdns=False, mesh="work"))
    await birch.start()
    alder = Agent(ALDER, Options(tmp_path / "alder", host="127.0.0.1", mdns=False, peers=(("127.0.0.1", birch.server.port, BIRCH.id),)))
    try:
        await alder.start()
        async with asyncio.timeout(30):
            while not alder.elsewhere():
                await asyncio.sleep(0.05)
        assert alder.elsewhere() == {BIRCH.id: "work"}
        assert alder.up() == []
    finally:
        await alder.close()
        await birch.close()


async def test_the_ledger_that_is_shown_is_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.api.administration.CHECK_S", 0.1)
    async with couple(tmp_path) as (alder, birch):
        before = (await birch.administration.snapshot()).ledger
        await deed(birch, "expect", ALDER)
        await deed(alder, "prepay", BIRCH)
        after = before
        async with asyncio.timeout(20):
            while after is None or after.last is None:
                await asyncio.sleep(0.05)
                after = (await birch.administration.snapshot()).ledger
        assert before is not None
        assert (before.last, after.sound, after.checked_at > before.checked_at) == (None, True, True)


async def test_a_prepayment_travels_by_itself(tmp_path: Path) -> None:
    async with couple(tmp_path) as (alder, birch):
        assert await deed(alder, "expect", BIRCH) is None
        entry = await deed(birch, "prepay", ALDER)
        assert entry is not None
        await owed(birch, ALDER, -700)
        await owed(alder, BIRCH, 700)
        async with asyncio.timeout(10):
            while len(await birch.ledger.read(lambda reader: reader.debts())) > 0:
                await asyncio.sleep(0.01)
        assert await birch.ledger.read(lambda reader: reader.ack_of(bytes.fromhex(entry))) is not None  # type: ignore[arg-type]


async def test_one_who_cannot_be_dialled_fetches_what_it_is_given(tmp_path: Path) -> None:
    async with couple(tmp_path) as (alder, birch):
        await alder.server.close()
        await deed(alder, "expect", BIRCH)
        await deed(birch, "prepay", ALDER)
        alder.requester.payer.wake(BIRCH.id)
        await owed(alder, BIRCH, 700)
