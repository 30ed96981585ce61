"""Requesters that take places and never use them, race against the worker, or send what nobody asked for."""

import asyncio
import contextlib
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import CreditPolicy
from nexus_edge.ledger.errors import DiskFull
from nexus_edge.market import leasebook, letting, quoting
from nexus_edge.market.jobs import Phase
from nexus_edge.market.leases import State
from nexus_edge.transport import Caller
from nexus_edge.types import Digest, JobId, MicroCredits
from nexus_edge.wire.limits import OPEN_LEASES, OPEN_LEASES_OF_STRANGERS, OPEN_LEASES_PER_ACCOUNT, PROOF_KEPT_MS, RESULT_KEPT_MS
from nexus_edge.wire.messages import InputUpload, QuoteRequest
from nexus_edge.wire.objects import Lease
from nexus_edge.wire.refusals import Code, Refusal
from tests.attacks.test_market import birch_for, ended, lease_of, order, quoted
from tests.support.trade import DATA, DIGEST, Trader, traders

pytestmark = pytest.mark.asyncio


def request() -> QuoteRequest:
    return QuoteRequest(secrets.token_bytes(16), Digest(DIGEST), "tflm", "zk-100", 1, len(DATA), MicroCredits(10_000), 20_000)


def caller(name: str, address: str) -> tuple[Trader, Caller]:
    """A requester as the worker's handlers see it: for more addresses than one machine has."""
    key = NodeKey.from_seed(name.encode().ljust(32, b"."))
    return Trader(Path("/nowhere"), key), Caller(key.id, address, 1)


async def take(birch: Trader, asker: Trader, who: Caller, inc: Digest | None = None) -> Digest:
    quote = await birch.worker.quote(who, request())
    lease = lease_of(asker, quote, inc or Digest(secrets.token_bytes(32)))
    await birch.worker.lease(who, lease, quote)
    return lease.id


async def test_another_input_that_comes_with_its_lease_ends_it_without_debt(tmp_path: Path) -> None:
    async with traders(tmp_path, "birch") as (birch,):
        asker, who = caller("asker", "192.168.1.7")
        quote = await birch.worker.quote(who, request())
        inc, upload = await birch.local.commit(DIGEST, DATA)
        lease = lease_of(asker, quote, inc)
        with pytest.raises(Refusal, match="not the one") as refused:
            await birch.worker.lease(who, lease, quote, replace(upload, data=bytes(len(DATA))))
        assert refused.value.code is Code.BAD_INPUT
        assert birch.worker.leases[lease.id].state is State.FAILED
        assert (await birch.ledger.read(lambda reader: reader.book(asker.key.id))).reserved_in == 0


async def test_many_names_at_one_address_hold_no_more_leases_than_one(tmp_path: Path) -> None:
    async with traders(tmp_path, "birch") as (birch,):
        for number in range(OPEN_LEASES_PER_ACCOUNT):
            await take(birch, *caller(f"sybil {number}", "192.168.1.7"))
        with pytest.raises(Refusal, match="at your address") as refused:
            await take(birch, *caller("sybil 99", "192.168.1.7"))
        assert refused.value.code is Code.BUSY
        await take(birch, *caller("another", "192.168.1.8"))
        friend, address = caller("friend", "192.168.1.7")
        await birch.ledger.transact("grant", lambda transaction: transaction.grant(friend.key.id, MicroCredits(100_000)))
        await take(birch, friend, address)


async def test_newcomers_take_turns_at_a_bucket_that_is_short_by_where_they_are(tmp_path: Path) -> None:
    """Names cost nothing: whoever has many where one was just served comes after all who wait elsewhere."""
    price = (1 + 20) * 1000 // 1000
    policy = CreditPolicy(public_bucket=MicroCredits(4 * price))
    async with traders(tmp_path, "birch", policy=policy) as (birch,):

        async def room(name: str, address: str) -> int:
            return (await birch.worker.quote(caller(name, address)[1], request())).object.room

        held, near, far = "203.0.113.1", "198.51.100.1", "192.0.2.1"
        holder = caller("holder", held)
        await take(birch, *holder)
        await take(birch, *holder)
        other = caller("other", "8.8.8.8")
        leases = [await take(birch, *other), await take(birch, *other)]
        assert [await room("near", near), await room("far", far), await room("holder", held)] == [0, 0, 0]
        await birch.worker.cancel(other[1], leases[0])
        # It is kept for the first who waits, and neither a quote nor a lease gives it to another.
        assert [await room("holder", held), await room("far", far)] == [0, 0]
        with pytest.raises(Refusal) as refused:
            await take(birch, *caller("far", far))
        assert refused.value.code is Code.NO_CREDIT
        assert await room("near", near) == price
        await take(birch, *caller("near", near))
        await birch.worker.cancel(other[1], leases[1])
        assert [await room(f"near {number}", near) for number in range(20)] == 20 * [0]
        assert await room("far", far) == price
        await take(birch, *caller("far", far))


async def test_all_leases_have_a_bound(tmp_path: Path) -> None:
    async with traders(tmp_path, "birch") as (birch,):
        for number in range(OPEN_LEASES_OF_STRANGERS):
            await take(birch, *caller(f"sybil {number}", f"192.168.1.{number // OPEN_LEASES_PER_ACCOUNT}"))
        with pytest.raises(Refusal, match=f"{OPEN_LEASES_OF_STRANGERS} leases of nodes that are new"):
            await take(birch, *caller("a stranger too many", "192.168.2.1"))
        for number in range(OPEN_LEASES - OPEN_LEASES_OF_STRANGERS):
            friend, address = caller(f"friend {number // OPEN_LEASES_PER_ACCOUNT}", "192.168.1.7")
            await birch.ledger.transact("grant", lambda tx, friend=friend: tx.grant(friend.key.id, MicroCredits(100_000)))  # type: ignore[misc]
            await take(birch, friend, address)
        last, address = caller("one too many", "192.168.1.7")
        await birch.ledger.transact("grant", lambda tx: tx.grant(last.key.id, MicroCredits(100_000)))
        with pytest.raises(Refusal, match=f"{OPEN_LEASES} leases are open"):
            await take(birch, last, address)


async def test_a_place_without_an_input_is_free_again_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letting, "INPUT_GRACE_S", 0.2)
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        inc, upload = await alder.local.commit(DIGEST, DATA)
        quote = await quoted(alder, birch)
        lease = lease_of(alder, quote, inc)
        await birch_for(alder, birch).lease(lease, quote)
        assert await birch.worker.leases.changed(lambda: birch.worker.leases[lease.id].state is State.EXPIRED, 5)
        assert (await birch.ledger.read(lambda reader: reader.book(alder.key.id))).exposure == 0
        assert birch.local.pins == 0
        with pytest.raises(Refusal) as refused:
            await birch_for(alder, birch).put_input(lease.id, upload)
        assert refused.value.code is Code.LEASE_ENDED
        with pytest.raises(Refusal) as refused:
            await birch_for(alder, birch).lease(lease, quote)
        assert refused.value.code is Code.LEASE_ENDED


async def test_leases_that_were_free_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasebook, "ENDED_KEPT", 3)
    monkeypatch.setattr(leasebook, "ENDED_KEPT_S", 0.0)
    async with traders(tmp_path, "birch") as (birch,):
        asker, who = caller("spammer", "192.168.1.7")
        for _ in range(20):
            await birch.worker.cancel(who, await take(birch, asker, who))
        await birch.worker.book.expire()
        assert len(list(birch.worker.leases)) == len(birch.worker.book.work) == len(birch.worker.book.by_number) == 3
        port = birch.server.port
        await birch.stop()
        await birch.start(port)
        await birch.worker.book.expire()
        assert len(list(birch.worker.leases)) == 3
        assert (await birch.ledger.verify()).faults == ()


async def test_an_input_that_others_name_outlives_a_lease_that_was_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs of one input: the same bytes, one file."""
    monkeypatch.setattr(leasebook, "ENDED_KEPT", 0)
    monkeypatch.setattr(leasebook, "ENDED_KEPT_S", 0.0)
    async with traders(tmp_path, "birch") as (birch,):
        birch.local.gate.clear()
        asker, who = caller("alder", "192.168.1.7")
        inc, upload = await asker.local.commit(DIGEST, DATA)
        first, second = [await take(birch, asker, who, inc) for _ in range(2)]
        for lease in (first, second):
            await birch.worker.put_input(who, lease, upload)
        shared = birch.worker.leases[first].input
        assert shared is not None
        assert birch.worker.leases[second].input == shared
        await birch.worker.cancel(who, first)
        await birch.worker.book.expire()
        assert birch.worker.leases.get(first) is None
        assert await birch.blobs.has(shared)
        await birch.worker.cancel(who, second)
        await birch.worker.book.expire()
        assert not await birch.blobs.has(shared)


async def test_inputs_of_leases_that_came_to_nothing_fill_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leased, given, cancelled before it began, again and again: nothing is owed, and nothing stays."""
    monkeypatch.setattr(leasebook, "ENDED_KEPT_S", 0.0)
    async with traders(tmp_path, "birch") as (birch,):
        birch.local.gate.clear()
        asker, who = caller("spammer", "192.168.1.7")
        for _ in range(20):
            inc, upload = await asker.local.commit(DIGEST, DATA)
            lease = await take(birch, asker, who, inc)
            await birch.worker.put_input(who, lease, upload)
            assert birch.blobs.held > 0
            await birch.worker.cancel(who, lease)
            await birch.worker.book.expire()
            assert birch.blobs.held == 0
        assert all(work.upload is None for work in birch.worker.book.work.values())
        assert len(list(birch.worker.leases)) == 20


async def test_what_is_settled_leaves_memory_and_stays_settled(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        job = await ended(alder, await alder.requester.submit(order()))
        lease = (await alder.ledger.read(lambda reader: reader.object(job.attempt.lease))).of(Lease)
        quote = await alder.ledger.read(lambda reader: reader.object(lease.object.quote))
        for one in (alder, birch):
            one.waited_ms = RESULT_KEPT_MS
        await alder.requester.forget()
        await birch.worker.book.forget()
        assert list(alder.requester.jobs) == []
        assert list(birch.worker.leases) == []
        for ask in (birch_for(alder, birch).poll(lease.id, 0, 0), birch_for(alder, birch).result(lease.id)):
            with pytest.raises(Refusal) as refused:
                await ask
            assert refused.value.code is Code.NOT_FOUND
        # The quote may still hold; what is in the ledger has begun, whatever memory says.
        with pytest.raises(Refusal):
            await birch_for(alder, birch).lease(lease, quote)
        port = birch.server.port
        await birch.stop()
        await birch.start(port)
        assert list(birch.worker.leases) == []
        with pytest.raises(Refusal):
            await birch_for(alder, birch).lease(lease, quote)
        assert (await birch.ledger.verify()).faults == ()


async def test_who_pays_after_a_month_is_still_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        monkeypatch.setattr(alder.requester.payer, "wake", lambda _: None)
        job = await alder.requester.submit(order())
        await alder.requester.jobs.changed(lambda: alder.requester.jobs[job.id].entry is not None, 20)
        birch.waited_ms = PROOF_KEPT_MS
        await birch.worker.book.forget()
        assert list(birch.worker.leases) == []
        monkeypatch.undo()
        alder.requester.payer.wake(birch.key.id)
        done = await ended(alder, job)
        assert (await birch.ledger.read(lambda reader: reader.book(alder.key.id))).owed == done.paid > 0
        assert (await birch.ledger.verify()).faults == ()


async def test_requests_that_are_cut_while_they_are_written(tmp_path: Path) -> None:
    """A slow disk, and a requester that hangs up and asks again: each step is written once, and memory has what the ledger has."""
    async with traders(tmp_path, "birch") as (birch,):
        asker, who = caller("impatient", "192.168.1.7")
        inc, upload = await birch.local.commit(DIGEST, DATA)
        honest = birch.ledger.transact

        async def slow(name: str, work: Any) -> Any:
            made = await honest(name, work)
            await asyncio.sleep(0.3)
            return made

        async def cut(request: Any) -> None:
            task = asyncio.ensure_future(request)
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        quote = await birch.worker.quote(who, request())
        lease = lease_of(asker, quote, inc)
        birch.local.gate.clear()
        birch.ledger.transact = slow  # type: ignore[method-assign]
        await cut(birch.worker.lease(who, lease, quote))
        again = await birch.worker.lease(who, lease, quote)
        assert again.object.lease == lease.id
        await cut(birch.worker.put_input(who, lease.id, upload))
        with contextlib.suppress(LedgerError):  # the first is being written; who asks once more is told that it is here
            await birch.worker.put_input(who, lease.id, upload)
        birch.ledger.transact = honest  # type: ignore[method-assign]
        await birch.worker.put_input(who, lease.id, upload)
        birch.local.gate.set()
        assert await birch.worker.leases.changed(lambda: birch.worker.leases[lease.id].state is State.UNPAID, 10)
        kinds = [event.kind for event in await birch.ledger.read(lambda reader: reader.events("lease", lease.id))]
        assert kinds == ["leased", "queued", "delivered"]
        port = birch.server.port
        await birch.stop()
        await birch.start(port)
        assert birch.worker.leases[lease.id].state is State.UNPAID


async def test_cancelling_while_the_answer_is_made(tmp_path: Path) -> None:
    """Whoever wins, the book has what the lease's end says: the price, the fee, or nothing."""
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        ends = set()
        for pause in (0.0, 0.002, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4):
            asker, who = caller(f"racer {pause}", "192.168.1.7")
            inc, upload = await alder.local.commit(DIGEST, DATA)
            quote = await birch.worker.quote(who, request())
            lease = lease_of(asker, quote, inc)
            await birch.worker.lease(who, lease, quote)
            if not pause:  # at least this one is in time
                birch.local.gate.clear()
            await birch.worker.put_input(who, lease.id, upload)
            await asyncio.sleep(pause)
            status = await birch.worker.cancel(who, lease.id)
            birch.local.gate.set()
            again = await birch.worker.cancel(who, lease.id)
            assert (again.state, again.owed) == (status.state, status.owed)
            state = birch.worker.leases[lease.id]
            ends.add(state.state)
            expected = {State.UNPAID: state.price, State.CANCELLED: state.owed}[state.state]
            assert status.owed == expected in (0, state.start_fee, state.price)
            assert (await birch.ledger.read(lambda reader, peer=who.peer: reader.book(peer))).exposure == expected  # type: ignore[misc]
        assert State.CANCELLED in ends
        assert birch.local.pins == 0
        assert (await birch.ledger.verify()).faults == ()


async def test_a_full_disk_stops_no_slot_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.market.running.STUCK_S", 0.2)
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        honest, left = birch.blobs.put, 2

        async def put(content: bytes) -> Digest:
            nonlocal left
            if len(content) < len(DATA) and left:  # an output
                left -= 1
                raise DiskFull("a file cannot be written", "no space")
            return await honest(content)

        monkeypatch.setattr(birch.blobs, "put", put)
        job = await ended(alder, await alder.requester.submit(order()))
        assert left == 0
        assert [attempt.worker for attempt in job.attempts] == [birch.key.id]
        assert job.paid > 0
        assert (await ended(alder, await alder.requester.submit(order()))).paid > 0


@pytest.mark.parametrize(
    "odd",
    [
        {"size": 2**24},
        {"size": 0},
        {"mode": 2**53 - 1},
        {"max_price": MicroCredits(1)},
    ],
)
async def test_quotes_for_what_there_is_not(tmp_path: Path, odd: dict[str, Any]) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        with pytest.raises(Refusal) as refused:
            await birch_for(alder, birch).quote(replace(request(), **odd))
        assert refused.value.code in (Code.BAD_INPUT, Code.MODEL_REFUSED, Code.PRICE)
        assert list(birch.worker.leases) == []


async def test_leases_of_other_attempts_and_numbers(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        first, second = await quoted(alder, birch), await quoted(alder, birch)
        one = lease_of(alder, first, Digest(bytes(32)))
        await birch_for(alder, birch).lease(one, first)
        twin = lease_of(alder, second, Digest(b"\1" * 32), job=one.object.job, commit=one.object.commit)
        with pytest.raises(Refusal) as refused:
            await birch_for(alder, birch).lease(twin, second)
        assert refused.value.code is Code.CONFLICT
        await birch_for(alder, birch).lease(lease_of(alder, second, Digest(bytes(32)), job=JobId(bytes(16))), second)


async def test_inputs_larger_than_any(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        inc, upload = await alder.local.commit(DIGEST, DATA)
        quote = await quoted(alder, birch)
        lease = lease_of(alder, quote, inc)
        await birch_for(alder, birch).lease(lease, quote)
        with pytest.raises(Refusal) as refused:
            await birch_for(alder, birch).put_input(lease.id, InputUpload(bytes(16 * 2**20), upload.seed, 1))
        assert refused.value.code is Code.BAD_INPUT
        assert birch.worker.leases[lease.id].state is State.FAILED
        assert birch.blobs.held == 0


async def given(alder: Trader, birch: Trader) -> Digest:
    """A lease with its input, whose work has not begun."""
    inc, upload = await alder.local.commit(DIGEST, DATA)
    quote = await quoted(alder, birch)
    lease = lease_of(alder, quote, inc)
    await birch_for(alder, birch).lease(lease, quote)
    await birch_for(alder, birch).put_input(lease.id, upload)
    return lease.id


async def test_what_is_forgotten_while_it_waits_stops_no_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasebook, "ENDED_KEPT", 0)
    monkeypatch.setattr(leasebook, "ENDED_KEPT_S", 0.0)
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        first = await given(alder, birch)
        await birch.worker.leases.changed(lambda: bool(birch.worker.book.work[first].phase), 5)
        second = await given(alder, birch)
        await birch_for(alder, birch).cancel(second)
        await birch.worker.book.expire()
        assert birch.worker.leases.get(second) is None
        birch.local.gate.set()
        third = await given(alder, birch)
        assert await birch.worker.leases.changed(lambda: birch.worker.leases[third].state is State.UNPAID, 20)
        assert not birch.running.done()


async def test_quotes_that_were_taken_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quoting, "TTL_MS", 100)
    async with traders(tmp_path, "birch") as (birch,):
        asker, who = caller("spammer", "192.168.1.7")
        for _ in range(3):
            await birch.worker.cancel(who, await take(birch, asker, who))
        assert len(birch.worker.letting.taken) == 3
        await asyncio.sleep(0.25)
        await birch.worker.cancel(who, await take(birch, asker, who))
        assert len(birch.worker.letting.taken) == 1


@pytest.mark.parametrize("left", ["model", "input"])
async def test_a_lease_whose_model_or_input_is_gone_ends_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        lease = await given(alder, birch)
        assert await birch.worker.leases.changed(lambda: birch.worker.leases[lease].input is not None, 5)
        port = birch.server.port
        await birch.stop()
        birch.local.pins = 0
        if left == "model":
            (birch.folder / "blobs" / (birch.worker.leases[lease].input or b"").hex()).unlink()
        else:

            def gone(_: object) -> None:
                raise Refusal(Code.MODEL_MISSING, "the model has left")

            monkeypatch.setattr(birch.local, "pin", gone)
        await birch.start(port)
        assert birch.worker.leases[lease].state is State.FAILED
        assert birch.local.pins == 0
        assert (await birch.ledger.read(lambda reader: reader.book(alder.key.id))).exposure == 0


async def test_whoever_hangs_up_while_a_job_is_written_leaves_it_driven(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, _):
        asking = asyncio.create_task(alder.requester.submit(order()))
        while not list(alder.requester.jobs):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        (job,) = alder.requester.jobs
        assert (await ended(alder, job)).phase is Phase.SETTLED


async def test_whoever_hangs_up_while_a_job_is_cancelled_leaves_nothing_reserved(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        job = await alder.requester.submit(order())
        assert await alder.requester.jobs.changed(lambda: alder.requester.jobs[job.id].phase is Phase.ACCEPTED, 5)
        asking = asyncio.create_task(alder.requester.cancel(job.id))
        while alder.requester.jobs[job.id].phase is Phase.ACCEPTED:
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await alder.requester.wait(job.id, 5)).phase is Phase.CANCELLED
        async with asyncio.timeout(5):  # the fee ends it, once it is acknowledged
            while (await alder.ledger.read(lambda reader: reader.book(birch.key.id))).reserved_out:
                await asyncio.sleep(0.05)
        birch.local.gate.set()


async def test_leases_for_which_nothing_is_owed_are_rationed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is rows in the ledger for ever."""
    monkeypatch.setattr(leasebook, "FREE_LEASES", 3)
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        asker, who = caller("spammer", "192.168.1.7")
        for _ in range(3):
            await birch.worker.cancel(who, await take(birch, asker, who))
        with pytest.raises(Refusal, match="came to nothing") as refused:
            await take(birch, asker, who)
        assert refused.value.code is Code.BUSY
        with pytest.raises(Refusal, match="came to nothing"):
            await take(birch, *caller("another name", "192.168.1.7"))
        for _ in range(6):  # work that is done is no reason to wait
            await ended(alder, await alder.requester.submit(order()))


async def test_work_that_cannot_be_done_in_time_is_not_begun(tmp_path: Path) -> None:
    """Else its requester would have it done for nothing, but for the last moment."""
    async with traders(tmp_path, "birch") as (birch,):
        _, who = caller("hasty", "192.168.1.7")
        with pytest.raises(Refusal, match="would take 11 ms, your limit is 1") as refused:
            await birch.worker.quote(who, replace(request(), deadline_ms=1))
        assert refused.value.code is Code.BUSY
        await birch.worker.quote(who, replace(request(), deadline_ms=11))
