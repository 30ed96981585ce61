"""Fleets between whole traders: who gets the line, who is trusted, and what a member does with its owner's files."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from nexus_edge.errors import PeerError
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.ledger import CreditPolicy
from nexus_edge.market import fleet
from nexus_edge.market.fairness import Ticket
from nexus_edge.market.jobs import Job, Phase
from nexus_edge.market.membership import Membership
from nexus_edge.market.ordering import Order
from nexus_edge.market.placement import WORDS, Unfit
from nexus_edge.transport import PeerConnection
from nexus_edge.types import MicroCredits, UnixMs
from nexus_edge.wire.certificates import write_certificate
from tests.support.fleets import DAY_MS, OWNER, RIVAL, certificate, certificate_file, serving
from tests.support.trade import DATA, DIGEST, Trader, traders

pytestmark = pytest.mark.asyncio

A = NodeKey.from_seed(b"alder".ljust(32, b"."))


def order(deadline_ms: int = 20_000) -> Order:
    return Order(DIGEST, "tflm", "zk-100", DATA, MicroCredits(10_000), deadline_ms)


async def ended(trader: Trader, job: Job) -> Job:
    found = await trader.requester.wait(job.id, 30)
    assert found.phase.is_final, found
    return found


async def names(folder: Path, trader: Trader) -> None:
    """The owner names a node, and the node shows it around."""
    folder.mkdir(exist_ok=True, parents=True)
    trader.fleet.membership = Membership(trader.key.id, [certificate_file(folder, trader.key.id)])
    await trader.fleet.round()


async def test_members_are_served_on_one_line_and_strangers_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar", policy=serving()) as (alder, birch, cedar):
        for trader in (alder, cedar):
            trader.known = {birch.key.id: trader.known[birch.key.id]}
        refused = await ended(alder, await alder.requester.submit(order(deadline_ms=500)))
        assert (refused.phase, WORDS[Unfit.CREDIT] in refused.reason) == (Phase.FAILED, True)
        for trader in (alder, cedar):
            await names(tmp_path / "files" / trader.key.id.hex(), trader)
        birch.local.gate.clear()
        tickets: list[Ticket] = []
        put = birch.worker.book.ready.put

        def seen(ticket: Ticket) -> None:
            tickets.append(ticket)
            put(ticket)

        monkeypatch.setattr(birch.worker.book.ready, "put", seen)
        found = [await trader.requester.submit(order()) for trader in (alder, cedar)]
        async with asyncio.timeout(10):
            while sum(lease.state.is_open for lease in birch.worker.leases) < 2:
                await asyncio.sleep(0.02)
        assert {work.account for work in birch.worker.book.work.values()} == {OWNER.id}
        async with asyncio.timeout(10):
            while len(tickets) < 2:
                await asyncio.sleep(0.02)
        assert {ticket.account for ticket in tickets} == {OWNER.id}, "one flow"
        birch.local.gate.set()
        assert [(await ended(trader, job)).phase for trader, job in zip((alder, cedar), found, strict=True)] == [Phase.SETTLED] * 2


async def test_a_restart_of_either_side_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch", policy=serving()) as (alder, birch):
        await names(tmp_path / "files", alder)

        async def unasked(*_: object) -> None:
            raise AssertionError("it was shown already")

        monkeypatch.setattr(PeerConnection, "join", unasked)
        port = birch.server.port
        await birch.stop()
        await birch.start(port)
        await alder.stop()
        await alder.start()
        alder.meets(birch)
        assert (await ended(alder, await alder.requester.submit(order()))).phase is Phase.SETTLED


async def test_a_lease_that_was_open_at_a_restart_stays_on_the_fleets_account(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch", policy=serving()) as (alder, birch):
        await names(tmp_path / "files", alder)
        birch.local.gate.clear()
        await alder.requester.submit(order())
        async with asyncio.timeout(10):
            while not any(lease.state.value == "queued" for lease in birch.worker.leases):
                await asyncio.sleep(0.02)
        port = birch.server.port
        await birch.stop()
        await birch.start(port)
        assert {work.account for work in birch.worker.book.work.values()} == {OWNER.id}


async def test_a_worker_that_cannot_dial_us_is_known_as_a_member(tmp_path: Path) -> None:
    """Birch serves nobody's fleet and knows no address of alder's: alder looks."""
    async with traders(tmp_path, "alder", "birch", policy=serving()) as (alder, birch):
        birch.known = {}
        birch.fleet.membership = Membership(birch.key.id, [certificate_file(tmp_path, birch.key.id)])
        await birch.fleet.membership.look()
        await alder.fleet.round()
        assert await alder.ledger.read(lambda reader: reader.trusted()) == {birch.key.id}
        assert alder.fleet.trusts(birch.key.id)
        assert not birch.fleet.trusts(alder.key.id)


async def test_a_member_is_chosen_before_it_has_proven_itself(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar", policy=serving(bucket=1_000_000, cap=1_000_000)) as (alder, birch, cedar):
        cedar.fleet.membership = Membership(cedar.key.id, [certificate_file(tmp_path, cedar.key.id)])
        await cedar.fleet.membership.look()
        await alder.fleet.round()
        job = await ended(alder, await alder.requester.submit(order()))
        assert (job.phase, job.attempt.worker) == (Phase.SETTLED, cedar.key.id)
        assert [line for line in job.rejected if short_id(birch.key.id) in line and "it has not proven itself here, others have" in line]


async def test_a_grant_is_trust_too(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        await alder.ledger.transact("grant", lambda tx: tx.grant(birch.key.id, MicroCredits(5)))
        assert await alder.ledger.read(lambda reader: reader.trusted()) == {birch.key.id}
        await alder.ledger.transact("grant", lambda tx: tx.grant(birch.key.id, MicroCredits(0)))
        assert await alder.ledger.read(lambda reader: reader.trusted()) == set()


async def test_a_peer_is_shown_what_is_new_and_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    join: Callable[..., object] = PeerConnection.join

    async def counted(connection: PeerConnection, one: object) -> None:
        shown.append(one)
        await join(connection, one)  # type: ignore[misc]

    monkeypatch.setattr(PeerConnection, "join", counted)
    async with traders(tmp_path, "alder", "birch", policy=CreditPolicy()) as (alder, _):
        file = certificate_file(tmp_path, alder.key.id, days=1, ago_ms=1000)
        alder.fleet.membership = Membership(alder.key.id, [file])
        for _ in range(3):
            await alder.fleet.round()
        assert len(shown) == 1, "birch does not serve it, and said so"
        file.write_bytes(write_certificate(certificate(alder.key.id)))
        for _ in range(3):
            await alder.fleet.round()
        assert len(shown) == 2
        # Whoever was away is shown it again: it may have lost what it knew, or serve the fleet since.
        alder.known, there = {}, alder.known
        await alder.fleet.round()
        alder.known = there
        await alder.fleet.round()
        assert len(shown) == 3


async def test_a_peer_that_does_not_answer_is_tried_again_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "RETRY_S", 0.0)
    tried: list[object] = []

    async def deaf(_: PeerConnection, one: object) -> None:
        tried.append(one)
        raise PeerError("it does not answer")

    async with traders(tmp_path, "alder", "birch", policy=serving()) as (alder, birch):
        with monkeypatch.context() as patched:
            patched.setattr(PeerConnection, "join", deaf)
            await names(tmp_path / "files", alder)
            await alder.fleet.round()
        assert len(tried) == 2
        await alder.fleet.round()
        assert birch.fleet.trusts(alder.key.id)


async def test_a_peer_that_stalls_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "ROUND_S", 0.5)
    monkeypatch.setattr(fleet, "AT_ONCE", 2)
    async with traders(tmp_path, "alder", "birch", "cedar", policy=serving()) as (alder, birch, cedar):

        async def stall(*_: object) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr(birch.fleet, "join", stall)
        async with asyncio.timeout(3):
            await names(tmp_path / "files", alder)
        assert cedar.fleet.trusts(alder.key.id)
        monkeypatch.undo()
        await alder.fleet.round()
        assert birch.fleet.trusts(alder.key.id)


async def test_a_file_that_is_renewed_is_read_again(tmp_path: Path) -> None:
    file = certificate_file(tmp_path, A.id, days=1, ago_ms=1000)
    member = Membership(A.id, [file])
    await member.look()
    (first,) = member.holding()
    renewed = certificate(A.id)
    (tmp_path / "next").write_bytes(write_certificate(renewed))
    (tmp_path / "next").replace(file)
    await member.look()
    assert member.holding() == (renewed,)
    assert first != renewed


async def test_a_file_that_is_damaged_or_gone_leaves_what_was_read(tmp_path: Path) -> None:
    file = certificate_file(tmp_path, A.id)
    member = Membership(A.id, [file])
    await member.look()
    good = member.holding()
    file.write_bytes(b"half a cert")
    await member.look()
    assert member.holding() == good
    assert "is no group certificate" in member.states()[0][1]
    file.unlink()
    await member.look()
    assert member.holding() == good
    assert "cannot be read" in member.states()[0][1]


@pytest.mark.parametrize(
    ("left_ms", "holds", "says"),
    [
        (3 * DAY_MS + 60_000, True, ""),
        (3 * DAY_MS - 60_000, True, "it ends in 71 hours: have it renewed"),
        (60_000, True, "it ends in 0 hours: have it renewed"),
        (-60_000, False, "the certificate has ended: ask the fleet's owner for a new one"),
    ],
)
async def test_the_owner_is_warned_three_days_before_the_end(tmp_path: Path, left_ms: int, *, holds: bool, says: str) -> None:
    issued = certificate_file(tmp_path, A.id)
    end = certificate(A.id).object.exp
    member = Membership(A.id, [issued], lambda: UnixMs(end - left_ms - 1000))
    with structlog.testing.capture_logs() as records:
        for _ in range(3):
            await member.look()
    assert (bool(member.holding()), member.states()[0][1]) == (holds, says)
    assert [one["problem"] for one in records] == [says] * bool(says), "once a day"


async def test_a_certificate_of_another_node_is_told_and_not_shown(tmp_path: Path) -> None:
    member = Membership(A.id, [certificate_file(tmp_path, RIVAL.id)])
    await member.look()
    assert member.holding() == ()
    assert "is for" in member.states()[0][1]
