"""Jobs between two nodes: proved, verified, paid, and settled in both books."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexus_edge.clock import now_ms
from nexus_edge.errors import BadInput, PeerError
from nexus_edge.ledger import restore_backup
from nexus_edge.market.jobs import Job, Outcome, Phase
from nexus_edge.market.keeping import contents
from nexus_edge.market.leasebook import HELD_ANSWERS, Made
from nexus_edge.market.leases import State
from nexus_edge.market.letting import Letting
from nexus_edge.market.ordering import Order
from nexus_edge.market.placement import WORDS, Unfit
from nexus_edge.market.running import Died
from nexus_edge.market.running import Order as ChildOrder
from nexus_edge.market.watching import Watching
from nexus_edge.market.work import Work
from nexus_edge.transport import PeerConnection
from nexus_edge.transport.channel import Channel
from nexus_edge.types import Digest, MicroCredits
from nexus_edge.wire.limits import SMALL_ANSWER
from nexus_edge.wire.refusals import Code, Refusal
from tests.support.trade import DATA, DIGEST, LABEL, Local, Trader, traders

pytestmark = pytest.mark.asyncio


def order(**changes: object) -> Order:
    plain = {"model": DIGEST, "sem": "tflm", "params": "zk-100", "data": DATA, "max_price": MicroCredits(10_000), "deadline_ms": 20_000}
    return Order(**{**plain, **changes})  # type: ignore[arg-type]


async def ended(trader: Trader, job: Job) -> Job:
    found = await trader.requester.wait(job.id, 30)
    assert found.phase.is_final, found
    return found


async def never(*_: Any) -> None:
    """Goes on for ever."""
    await asyncio.Event().wait()


async def test_one_job_one_receipt(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        job = await ended(alder, await alder.requester.submit(order()))
        assert job.phase is Phase.SETTLED, job
        assert job.attempt.output is not None
        output = await alder.blobs.get(job.attempt.output)
        assert output is not None
        assert int(np.frombuffer(output, np.int8).argmax()) == LABEL
        (lease,) = birch.worker.leases
        assert lease.state is State.SETTLED
        ours = await alder.ledger.read(lambda reader: reader.book(birch.key.id))
        theirs = await birch.ledger.read(lambda reader: reader.book(alder.key.id))
        assert -ours.owed == theirs.owed == job.paid == lease.price > 0
        assert (ours.reserved_out, theirs.reserved_in) == (0, 0)
        assert ours.line == lease.price // 4
        assert birch.local.pins == 0
        for trader in (alder, birch):
            assert (await trader.ledger.verify()).faults == ()


async def test_a_small_job_takes_four_requests_and_a_large_one_goes_the_long_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = Channel.ask

    async def noting(self: Channel, name: str, *more: Any, **named: Any) -> bytes:
        asked.append(name)
        return await ask(self, name, *more, **named)

    monkeypatch.setattr(Channel, "ask", noting)
    async with traders(tmp_path, "alder", "birch") as (alder, _):
        assert (await ended(alder, await alder.requester.submit(order()))).phase is Phase.SETTLED
        small = {*asked} - {"account"}
        asked.clear()
        monkeypatch.setattr("nexus_edge.market.jobs.INPUT_WITH_LEASE", 0)
        monkeypatch.setattr("nexus_edge.market.worker.SMALL_ANSWER", 0)
        assert (await ended(alder, await alder.requester.submit(order()))).phase is Phase.SETTLED
    assert small == {"quote", "lease", "poll", "entries"}
    assert {*asked} - {"account"} == small | {"put_input", "result", "get_object"}


async def test_an_order_with_a_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, _):
        with pytest.raises(BadInput):
            await alder.requester.submit(order(data=b"short"))
        await asyncio.sleep(0)
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("choose")]
        assert not list(alder.requester.jobs)


async def test_delivery_verdict_and_payment_are_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, _):
        transact, commits = alder.ledger.transact, []

        async def noting(name: str, work: Any) -> Any:
            commits.append(name)
            return await transact(name, work)

        await ended(alder, await alder.requester.submit(order()))  # opens the chain of entries
        monkeypatch.setattr(alder.ledger, "transact", noting)
        job = await ended(alder, await alder.requester.submit(order()))
        assert job.phase is Phase.SETTLED
        assert commits == ["job:created", "job:offered", "job:accepted", "job:paying", "job:settled"]
        kinds = [event.kind for event in await alder.ledger.read(lambda reader: reader.events("job")) if event.subject == job.id]
        assert kinds == ["created", "offered", "accepted", "delivered", "verified", "paying", "settled"]


async def test_many_jobs_at_once(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        found = await asyncio.gather(*[alder.requester.submit(order()) for _ in range(10)])
        done = [await ended(alder, job) for job in found]
        assert [job.phase for job in done] == [Phase.SETTLED] * 10
        theirs = await birch.ledger.read(lambda reader: reader.book(alder.key.id))
        assert theirs.owed == sum(job.paid for job in done)


async def test_a_false_proof_is_refused_and_costs_nothing(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):

        def spoil(answer):  # type: ignore[no-untyped-def]
            from dataclasses import replace

            proof = bytearray(answer.proof)
            proof[-100] ^= 1
            return replace(answer, proof=bytes(proof))

        birch.local.spoil = spoil
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=2000)))
        assert job.phase is Phase.FAILED
        assert job.attempts[0].outcome is Outcome.INVALID
        assert len(job.attempts) == 1, "a worker with a false proof gets no second job"
        ours = await alder.ledger.read(lambda reader: reader.book(birch.key.id))
        assert (ours.out, ours.reserved_out) == (0, 0)


async def begun_at(birch: Trader) -> Work:
    """A lease that runs, and waits at the gate."""
    assert await birch.worker.leases.changed(lambda: any(work.phase for work in birch.worker.book.work.values()), 10)
    assert await birch.worker.leases.changed(lambda: all(lease.state is State.QUEUED for lease in birch.worker.leases), 10)
    (work,) = birch.worker.book.work.values()
    return work


async def test_the_fee_is_owed_once_the_requester_knows_that_work_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        monkeypatch.setattr(Watching, "watch", never)
        await alder.requester.submit(order())
        work = await begun_at(birch)
        assert (work.told, work.costs_fee) == (False, False)
        monkeypatch.setattr("nexus_edge.market.work.UNASKED_S", 0.0)
        assert work.costs_fee, "it worked, and nobody asked"
        monkeypatch.undo()
        (lease,) = birch.worker.leases
        status = await alder.client.at(birch.key.id, "127.0.0.1", birch.server.port).poll(lease.id, 0, 0)
        assert (status.state, work.told, work.costs_fee) == ("executing", True, True)
        birch.local.gate.set()


async def test_what_has_to_be_read_or_done_again_does_not_set_the_fee_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that reads the model, dies in its run and is tried again has worked since it began to read."""
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        monkeypatch.setattr(Watching, "watch", never)
        prove, tries = birch.local.prove, 0

        async def dying(asked: Any, progress: Callable[[str, int], None]) -> Any:
            nonlocal tries
            tries += 1
            progress("load", 0)
            if tries == 1:
                began.append(next(iter(birch.worker.book.work.values())).began)
                progress("execute", 0)
                raise Died("the child died", "it was killed", again=True)
            await birch.local.gate.wait()
            return await prove(asked, progress)

        began: list[float | None] = []
        monkeypatch.setattr(birch.local, "prove", dying)
        await alder.requester.submit(order())
        assert await birch.worker.leases.changed(lambda: tries == 2, 20)
        work = await begun_at(birch)
        assert work.phase == "load"
        assert (work.began, work.run_began) == (began[0], None)
        assert work.began is not None
        monkeypatch.setattr("nexus_edge.market.work.UNASKED_S", 0.0)
        assert work.costs_fee, "it is read again, and nobody asked"
        birch.local.gate.set()


async def test_a_cancel_that_was_heard_before_a_restart_is_paid_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The requester asked before it cancelled, and does not know any more what it heard."""
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        monkeypatch.setattr(Watching, "watch", never)
        job = await alder.requester.submit(order())
        await begun_at(birch)
        (lease,) = birch.worker.leases
        connection = alder.client.at(birch.key.id, "127.0.0.1", birch.server.port)
        await connection.poll(lease.id, 0, 0)
        assert (await connection.cancel(lease.id)).owed == lease.start_fee > 0
        done = await ended(alder, await alder.requester.cancel(job.id))
        assert (done.phase, done.paid) == (Phase.CANCELLED, lease.start_fee)
        birch.local.gate.set()


async def test_what_was_delivered_is_paid_though_the_accept_never_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = PeerConnection.lease

    async def slow(*given: Any) -> None:
        await real(*given)
        await asyncio.Event().wait()

    monkeypatch.setattr(PeerConnection, "lease", slow)
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        job = await alder.requester.submit(order())
        assert await birch.worker.leases.changed(lambda: [lease.state for lease in birch.worker.leases] == [State.UNPAID], 10)
        assert alder.requester.jobs[job.id].phase is Phase.OFFERED
        done = await ended(alder, await alder.requester.cancel(job.id))
        assert (done.phase, done.paid) == (Phase.SETTLED, done.attempt.price)
        assert await birch.worker.leases.changed(lambda: [lease.state for lease in birch.worker.leases] == [State.SETTLED], 5)


async def test_a_fault_of_the_program_costs_one_lease_and_no_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        real, asked = birch.local.prove, 0

        async def prove(asked_for: ChildOrder, progress: Callable[[str, int], None]) -> Any:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise OSError("what nobody thought of")
            return await real(asked_for, progress)

        monkeypatch.setattr(birch.local, "prove", prove)
        first = await ended(alder, await alder.requester.submit(order()))
        assert (first.phase, first.attempts[0].outcome, len(first.attempts)) == (Phase.SETTLED, Outcome.FAILED, 2)
        assert "a fault of the worker's program" in [lease.reason for lease in birch.worker.leases]
        assert not birch.running.done()


@pytest.mark.parametrize(("kind", "name"), [(Watching, "watch"), (PeerConnection, "entries")])
async def test_a_fault_of_the_program_costs_a_requester_some_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, name: str
) -> None:  # fmt: skip
    monkeypatch.setattr("nexus_edge.market.requester.STUCK_S", 0.1)
    works = getattr(kind, name)
    faults: list[Any] = []

    async def fails_once(*given: Any) -> Any:
        if not faults:
            faults.append(given)
            raise RuntimeError("a fault")
        return await works(*given)

    monkeypatch.setattr(kind, name, fails_once)
    async with traders(tmp_path, "alder", "birch") as (alder, _):
        job = await ended(alder, await alder.requester.submit(order()))
        assert job.phase is Phase.SETTLED, job
    assert len(faults) == 1


async def test_cancelled_before_it_began_costs_nothing(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        first = await alder.requester.submit(order())
        second = await alder.requester.submit(order())
        assert await birch.worker.leases.changed(lambda: sum(lease.state is State.QUEUED for lease in birch.worker.leases) == 2, 5)
        assert await birch.worker.leases.changed(lambda: any(work.phase for work in birch.worker.book.work.values()), 5)
        running = next(job for job in (first, second) if birch.worker.book.work[alder.requester.jobs[job.id].attempt.lease].phase)
        waiting = second if running is first else first
        cancelled = await ended(alder, await alder.requester.cancel(waiting.id))
        assert (cancelled.phase, cancelled.paid) == (Phase.CANCELLED, 0)
        begun = await ended(alder, await alder.requester.cancel(running.id))
        assert begun.phase is Phase.CANCELLED
        assert begun.paid == begun.attempt.start_fee > 0
        birch.local.gate.set()

        async def paid() -> int:
            return (await birch.ledger.read(lambda reader: reader.book(alder.key.id))).owed

        async with asyncio.timeout(5):
            while await paid() != begun.paid:
                await asyncio.sleep(0.02)
        book = await birch.ledger.read(lambda reader: reader.book(alder.key.id))
        assert book.reserved_in == 0
        assert birch.local.pins == 0


async def test_a_worker_that_comes_back_finishes(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        job = await alder.requester.submit(order())
        await birch.worker.leases.changed(lambda: any(lease.state is State.QUEUED for lease in birch.worker.leases), 5)
        port = birch.server.port
        await birch.stop()
        birch.local.gate.set()
        await birch.start(port)
        assert (await ended(alder, job)).phase is Phase.SETTLED
        assert len(alder.requester.jobs[job.id].attempts) == 1


async def test_a_requester_that_comes_back_takes_its_result(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        job = await alder.requester.submit(order())
        await birch.worker.leases.changed(lambda: any(lease.state is State.QUEUED for lease in birch.worker.leases), 5)
        await alder.stop()
        birch.local.gate.set()
        await birch.worker.leases.changed(lambda: any(lease.state is State.UNPAID for lease in birch.worker.leases), 10)
        await alder.start()
        assert (await ended(alder, job)).phase is Phase.SETTLED
        assert (
            await birch.ledger.read(lambda reader: reader.book(alder.key.id))
        ).owed == job.max_price - job.max_price + alder.requester.jobs[job.id].paid


async def test_nobody_there(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder") as (alder,):
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=500)))
        assert job.phase is Phase.FAILED
        assert "no peer is up" in job.reason


async def test_no_worker_is_lost_while_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own line is down: an offered lease is sent until the deadline, and until then it is no worker's fault."""
    monkeypatch.setattr("nexus_edge.market.offering.SENDS_S", 0.03)
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        sent = 0

        async def unheard(self: Channel, name: str, *more: Any, **named: Any) -> bytes:
            nonlocal sent
            if name in ("lease", "poll"):
                sent += name == "lease"
                raise PeerError("no route")
            return await ask(self, name, *more, **named)

        ask = Channel.ask
        monkeypatch.setattr(Channel, "ask", unheard)
        monkeypatch.setattr(Trader, "others_answer", lambda *_: False)
        job = await alder.requester.submit(order())
        await asyncio.sleep(1)
        assert sent > 10
        assert [attempt.outcome for attempt in alder.requester.jobs[job.id].attempts] == [Outcome.OPEN]
        monkeypatch.setattr(Trader, "others_answer", lambda *_: True)
        async with asyncio.timeout(10):
            while alder.requester.jobs[job.id].attempts[0].outcome is not Outcome.LOST:
                await asyncio.sleep(0.01)
        monkeypatch.setattr(Channel, "ask", ask)
        assert (await ended(alder, job)).phase is Phase.SETTLED
        assert birch.key.id in alder.requester.workers.experience


async def test_an_input_is_committed_to_afresh_when_its_commitment_hides_it_from_nobody_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, prove, offers = Letting.take, Local.prove, []
    works: list[ChildOrder] = []

    async def busy_at_first(self: Letting, *given: Any, **named: Any) -> Any:
        offers.append(given)
        if len(offers) == 1:  # it has the input all the same
            raise Refusal(Code.BUSY, "not now", retry_ms=1)
        return await take(self, *given, **named)

    async def broken_twice(self: Local, work: ChildOrder, *more: Any) -> Any:
        works.append(work)
        if len(works) < 3:
            raise Died("the child died", "as it was told", again=False)
        return await prove(self, work, *more)

    monkeypatch.setattr(Letting, "take", busy_at_first)
    monkeypatch.setattr(Local, "prove", broken_twice)
    async with traders(tmp_path, "alder", "birch", "cedar", "dale", "elm") as (alder, *_):
        begun = await alder.requester.submit(order())
        job = await ended(alder, begun)
        assert [attempt.outcome for attempt in job.attempts] == [Outcome.DECLINED, Outcome.FAILED, Outcome.FAILED, Outcome.VERIFIED]
        assert (job.phase, job.committed_at, job.handed) == (Phase.SETTLED, 3, 1), job.reason
        assert [work.expected for work in works] == [begun.inc, begun.inc, job.inc]
        assert {work.upload.data for work in works} == {DATA}
        assert len({work.expected for work in works}) == len({work.upload.seed for work in works}) == 2
        assert job.former_inputs == (begun.input,)
        kept = [digest for digest, _ in contents(job)]
        assert {begun.input, job.input} <= set(kept), "both go with the job"


async def test_a_price_above_the_limit(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, _):
        job = await ended(alder, await alder.requester.submit(order(max_price=MicroCredits(1), deadline_ms=500)))
        assert f"1 {WORDS[Unfit.PRICE]}" in job.reason


async def test_no_room_in_memory(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.available = 2**20
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=500)))
        assert f"1 {WORDS[Unfit.MEMORY]}" in job.reason


@pytest.mark.parametrize("restored", ["requester", "worker"])
async def test_after_a_restore_books_are_compared_and_trade_goes_on(tmp_path: Path, restored: str) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        assert (await ended(alder, await alder.requester.submit(order()))).phase is Phase.SETTLED
        one = alder if restored == "requester" else birch
        await one.ledger.backup(tmp_path / "copy")
        second = await ended(alder, await alder.requester.submit(order()))
        assert second.phase is Phase.SETTLED
        port = one.server.port
        await one.stop()
        restore_backup(tmp_path / "copy", one.folder / "ledger.sqlite", one.key.id, now_ms())
        await one.start(port)
        third = await ended(alder, await alder.requester.submit(order()))
        assert third.phase is Phase.SETTLED
        async with asyncio.timeout(10):
            while await one.ledger.read(lambda reader: reader.unsynchronised()):
                await asyncio.sleep(0.05)
        ours = await alder.ledger.read(lambda reader: reader.book(birch.key.id))
        theirs = await birch.ledger.read(lambda reader: reader.book(alder.key.id))
        assert ours.owed == -theirs.owed
        assert theirs.owed == 3 * third.paid
        for trader in (alder, birch):
            assert (await trader.ledger.verify()).faults == ()


async def test_after_a_restore_an_input_is_committed_to_afresh(tmp_path: Path) -> None:
    """Workers that the backup does not know of may have opened the commitment as often as it hides the input."""
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        alder.known.clear()
        begun = await alder.requester.submit(order(deadline_ms=60_000))
        await alder.ledger.backup(tmp_path / "copy")
        port = alder.server.port
        await alder.stop()
        restore_backup(tmp_path / "copy", alder.folder / "ledger.sqlite", alder.key.id, now_ms())
        await alder.start(port)
        alder.meets(birch)
        job = await ended(alder, begun)
        assert (job.phase, job.former_inputs) == (Phase.SETTLED, (begun.input,))
        assert job.inc != begun.inc
        later = await alder.requester.submit(order())
        assert ((await ended(alder, later)).phase, alder.requester.jobs[later.id].inc) == (Phase.SETTLED, later.inc)
        await alder.stop()
        await alder.start(port)
        assert await alder.ledger.read(lambda reader: reader.restored_since("job", ("created", "recommitted"))) == set()


async def test_answers_in_memory_are_few_and_small(tmp_path: Path) -> None:
    async with traders(tmp_path, "birch") as (birch,):
        book = birch.worker.book
        names = [Digest(bytes([number]) * 32) for number in range(HELD_ANSWERS + 1)]
        for name in names:
            book.hold(name, Made(name, b"proof"))
        assert [book.made(name) for name in names] == [None, *(Made(name, b"proof") for name in names[1:])]
        assert [book.made(name) for name in names] == [None] * len(names)
        book.hold(names[0], Made(b"", bytes(SMALL_ANSWER + 1)))
        assert book.made(names[0]) is None
