"""Leases whose answers are lost on the way: over real connections, some of which are cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nexus_edge.market.jobs import Job, Outcome, Phase
from nexus_edge.market.ordering import Order
from nexus_edge.types import MicroCredits
from tests.support.trade import DATA, DIGEST, Trader, traders

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy a third of a second: nothing here depends on how long it is."""
    monkeypatch.setattr("nexus_edge.market.offering.SENDS_S", 1.0)
    monkeypatch.setattr("nexus_edge.market.offering.SEND_S", 1.0)


def order(deadline_ms: int = 60_000) -> Order:
    return Order(DIGEST, "tflm", "zk-100", DATA, MicroCredits(10_000), deadline_ms)


async def ended(trader: Trader, job: Job) -> Job:
    found = await trader.requester.wait(job.id, 60)
    assert found.phase.is_final, found
    return found


class Deaf:
    """The first of some workers that is offered a lease: it takes the lease or never sees it, and its first answers do not leave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workers: list[Trader], *, takes: bool, answers: int) -> None:
        self.worker: Trader | None = None
        self.offers = 0
        self._takes = takes
        self._unanswered = answers
        for worker in workers:
            monkeypatch.setattr(worker.worker, "lease", self._lease_of(worker, worker.worker.lease))

    def _lease_of(self, worker: Trader, honest: Any) -> Any:
        async def lease(*given: Any) -> Any:
            self.worker = self.worker or worker
            if worker is not self.worker:
                return await honest(*given)
            self.offers += 1
            is_lost = self.offers <= self._unanswered
            accept = await honest(*given) if self._takes or not is_lost else None
            return await asyncio.Event().wait() if is_lost else accept

        return lease


async def test_a_worker_that_has_the_lease_keeps_it_although_its_answers_were_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        deaf = Deaf(monkeypatch, [birch, cedar], takes=True, answers=3)
        job = await ended(alder, await alder.requester.submit(order()))
        assert deaf.worker is not None
        assert (job.phase, [attempt.outcome for attempt in job.attempts]) == (Phase.SETTLED, [Outcome.VERIFIED])
        assert job.attempt.worker == deaf.worker.key.id
        assert deaf.offers > 3
        assert [lease.id for worker in (birch, cedar) for lease in worker.worker.leases] == [job.attempt.lease]


async def test_a_worker_that_never_got_the_lease_is_asked_and_the_next_one_has_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        deaf = Deaf(monkeypatch, [birch, cedar], takes=False, answers=1000)
        job = await ended(alder, await alder.requester.submit(order()))
        assert deaf.worker is not None
        assert deaf.offers == 3
        assert (job.phase, [attempt.outcome for attempt in job.attempts]) == (Phase.SETTLED, [Outcome.LOST, Outcome.VERIFIED])
        assert job.attempts[0].worker == deaf.worker.key.id
        assert job.attempts[0].reason == "it did not answer the lease, and does not have it"
        assert (await alder.ledger.read(lambda reader: reader.book(job.attempts[0].worker))).reserved_out == 0


async def test_a_worker_that_has_the_lease_and_never_accepts_it_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        deaf = Deaf(monkeypatch, [birch, cedar], takes=True, answers=1000)
        job = await ended(alder, await alder.requester.submit(order()))
        assert deaf.offers == 6
        assert job.attempts[0].reason == "it has the lease, and does not accept it"
        assert (job.phase, [attempt.outcome for attempt in job.attempts]) == (Phase.SETTLED, [Outcome.LOST, Outcome.VERIFIED])


class Line:
    """A line to a worker, which can be cut: what is on it is lost, and nobody gets through."""

    def __init__(self, port: int) -> None:
        self.cut = False
        self.refused = 0
        self._to = port
        self._ends: set[asyncio.StreamWriter] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            self.refused += 1
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._ends |= {writer, back}
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    def down(self) -> None:
        self.cut = True
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()


@contextlib.asynccontextmanager
async def line_to(worker: Trader) -> AsyncIterator[tuple[Line, int]]:
    """And the port of its near end."""
    line = Line(worker.server.port)
    server = await asyncio.start_server(line.connected, "127.0.0.1", 0)
    try:
        yield line, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        line.down()


def cut_at_the_lease(monkeypatch: pytest.MonkeyPatch, line: Line, worker: Trader) -> None:
    """Once: the lease is taken, and the line goes with the answer."""
    honest = worker.worker.lease

    async def lease(*given: Any) -> Any:
        accept = await honest(*given)
        monkeypatch.setattr(worker.worker, "lease", honest)
        line.down()
        return accept

    monkeypatch.setattr(worker.worker, "lease", lease)


async def test_a_worker_that_cannot_be_asked_is_lost_once_others_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar), line_to(birch) as (line, port):
        alder.known = {birch.key.id: ("127.0.0.1", port)}
        cut_at_the_lease(monkeypatch, line, birch)
        answering = False
        monkeypatch.setattr(Trader, "others_answer", lambda *_: answering)
        job = await alder.requester.submit(order())
        async with asyncio.timeout(60):
            while line.refused < 5:
                await asyncio.sleep(0.01)
        assert [attempt.outcome for attempt in alder.requester.jobs[job.id].attempts] == [Outcome.OPEN]
        answering = True
        alder.meets(cedar)
        done = await ended(alder, job)
        assert (done.phase, [attempt.outcome for attempt in done.attempts]) == (Phase.SETTLED, [Outcome.LOST, Outcome.VERIFIED])
        assert done.attempts[0].reason == "it did not answer the lease"
        assert done.attempts[1].worker == cedar.key.id


async def test_a_line_that_comes_back_brings_the_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch), line_to(birch) as (line, port):
        alder.known = {birch.key.id: ("127.0.0.1", port)}
        cut_at_the_lease(monkeypatch, line, birch)
        monkeypatch.setattr(Trader, "others_answer", lambda *_: False)
        job = await alder.requester.submit(order())
        async with asyncio.timeout(60):
            while line.refused < 5:
                await asyncio.sleep(0.01)
        line.cut = False
        done = await ended(alder, job)
        assert (done.phase, [attempt.outcome for attempt in done.attempts]) == (Phase.SETTLED, [Outcome.VERIFIED])
        assert len(list(birch.worker.leases)) == 1
