"""Asking for quotes: who answers, who never does, and that nobody is waited for when there is enough to choose from."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from nexus_edge.identity import NodeKey, short_id
from nexus_edge.market import jobs
from nexus_edge.market.buying import ENOUGH, Buyer, Choice, Known
from nexus_edge.market.experience import Experience
from nexus_edge.market.jobs import Job, Phase
from nexus_edge.market.ordering import Order
from nexus_edge.market.placement import Unfit
from nexus_edge.transport import Caller
from nexus_edge.types import NOTHING, Digest, JobId, MicroCredits, UnixMs
from nexus_edge.wire.messages import QuoteRequest
from nexus_edge.wire.objects import Mode, Quote
from nexus_edge.wire.signing import Signed, sign
from tests.support.trade import DATA, DIGEST, Trader, traders

pytestmark = pytest.mark.asyncio
SILENT = NodeKey.from_seed(b"silent".ljust(32, b".")).id


def job() -> Job:
    created = jobs.Created(
        UnixMs(1), DIGEST, "tflm", "zk-100", 1, 1, Digest(bytes(32)), Digest(bytes(32)), len(DATA), MicroCredits(10_000), 60_000, None
    )  # fmt: skip
    return jobs.begin(JobId(bytes(16)), created)


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """A port where connections are taken, and nothing is ever said."""
    writers = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def chosen(buyer: Trader) -> Choice:
    known = Known(Experience(), NOTHING, excluded=False)
    async with asyncio.timeout(60):
        return await Buyer(buyer, buyer).choose(job(), lambda _: known, 60_000)  # type: ignore[arg-type]


def still_asking() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("quote of")]


async def test_nobody_waits_for_a_silent_peer_when_there_are_enough_quotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.market.buying.QUOTES_S", 600.0)
    names = ["alder", *(f"worker {number}" for number in range(ENOUGH))]
    async with silent() as port, traders(tmp_path, *names) as (alder, *workers):
        alder.known = {SILENT: ("127.0.0.1", port), **alder.known}
        choice = await chosen(alder)
        assert choice.best is not None
        assert choice.best.worker in {one.key.id for one in workers}
        reasons = {one.worker: (one.why, one.text) for one in choice.rejected}
        assert reasons.pop(SILENT) == (Unfit.OFFLINE, "it had not answered when there were enough quotes")
        assert {why for why, _ in reasons.values()} == {Unfit.UNPROVEN}
        assert len(reasons) == ENOUGH - 1
        assert still_asking() == []


async def test_with_fewer_quotes_a_silent_peer_has_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.market.buying.QUOTES_S", 0.5)
    async with silent() as port, traders(tmp_path, "alder", "birch") as (alder, birch):
        alder.known = {SILENT: ("127.0.0.1", port), **alder.known}
        choice = await chosen(alder)
        assert choice.best is not None
        assert choice.best.worker == birch.key.id
        assert [(one.worker, one.why) for one in choice.rejected] == [(SILENT, Unfit.OFFLINE)]
        assert still_asking() == []


async def test_peers_of_another_mesh_or_mode_are_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar", "dogwood") as (alder, birch, cedar, dogwood):
        honest = cedar.worker.quote

        async def sampled(caller: Caller, request: QuoteRequest) -> Signed[Quote]:
            return sign(cedar.key, replace((await honest(caller, request)).object, mode=Mode.SAMPLED.value))

        async def unasked(*_: object) -> Signed[Quote]:
            raise AssertionError("a peer of another mesh is not asked")

        monkeypatch.setattr(cedar.worker, "quote", sampled)
        monkeypatch.setattr(dogwood.worker, "quote", unasked)
        alder.away = {dogwood.key.id: "work"}
        choice = await chosen(alder)
        assert choice.best is not None
        assert choice.best.worker == birch.key.id
        assert {(one.worker, one.why, one.text) for one in choice.rejected} == {
            (cedar.key.id, Unfit.MODE, "it offers mode 3, not 1"),
            (dogwood.key.id, Unfit.MESH, "it is in the mesh 'work'"),
        }
        ordered = await alder.requester.submit(Order(DIGEST, "tflm", "zk-100", DATA, MicroCredits(10_000), 60_000))
        done = await alder.requester.wait(ordered.id, 60)
        assert (done.phase, done.attempt.worker) == (Phase.SETTLED, birch.key.id)
        assert set(done.rejected) == {
            f"{short_id(cedar.key.id)} mode: it offers mode 3, not 1",
            f"{short_id(dogwood.key.id)} mesh: it is in the mesh 'work'",
        }


async def test_a_search_that_is_given_up_asks_nobody_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.market.buying.QUOTES_S", 600.0)
    async with silent() as port, traders(tmp_path, "alder") as (alder,):
        alder.known = {SILENT: ("127.0.0.1", port)}
        search = asyncio.create_task(chosen(alder))
        async with asyncio.timeout(30):
            while not still_asking():
                await asyncio.sleep(0.01)
        search.cancel()
        await asyncio.gather(search, return_exceptions=True)
        assert search.cancelled()
        assert still_asking() == []
