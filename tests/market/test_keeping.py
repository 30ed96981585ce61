"""What is kept of a job, and for how long: by the node's age, whatever the wall clock says."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nexus_edge.ledger import BlobStore
from nexus_edge.market import jobs, leases
from nexus_edge.market.jobs import Phase
from nexus_edge.market.keeping import sweep
from nexus_edge.types import Digest
from nexus_edge.wire.limits import PROOF_KEPT_MS, RESULT_KEPT_MS
from tests.attacks.test_market import ended, order
from tests.market.test_states import JOB, made
from tests.support.trade import Trader, traders

pytestmark = pytest.mark.asyncio

LEASE = Digest(b"\7" * 32)
HOUR_S = 3600
DAY_NS = 86_400 * 10**9


@dataclass
class Age:
    """Seconds that a test turns."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


async def content(folder: Path) -> tuple[BlobStore, Age, list[Digest]]:
    """An input, an output and a proof that were kept two hours ago."""
    age = Age()
    blobs = BlobStore(folder, age_s=age)
    kept = [await blobs.put(content) for content in (b"input", b"output", b"proof")]
    age.now += 2 * HOUR_S
    return blobs, age, kept


async def there(blobs: BlobStore, kept: list[Digest]) -> list[bool]:
    return [await blobs.has(digest) for digest in kept]


async def test_answers_stay_a_day_and_proofs_a_month(tmp_path: Path) -> None:
    blobs, _, kept = await content(tmp_path / "blobs")
    given, output, proof = kept
    way = [
        made(jobs.Created, input=given), made(jobs.Offered), made(jobs.Accepted), made(jobs.Delivered, output=output, proof=proof),
        made(jobs.Verified), made(jobs.Paying), made(jobs.Settled),
    ]  # fmt: skip
    done, running = jobs.rebuild(JOB, way), jobs.rebuild(JOB, way[:4])

    async def left(*held: tuple[jobs.Job, int | None]) -> list[bool]:
        await sweep(blobs, held, [])
        return await there(blobs, kept)

    assert await left((done, RESULT_KEPT_MS - 1)) == [True, True, True]
    assert await left((done, 10 * PROOF_KEPT_MS), (running, None)) == [True, True, True]
    assert await left((done, RESULT_KEPT_MS), (replace(running, input=proof, attempts=()), None)) == [False, False, True]
    assert await left((done, PROOF_KEPT_MS)) == [False, False, False]


def unpaid(kept: list[Digest]) -> leases.LeaseState:
    """A lease that was delivered and waits for its payment."""
    given, output, proof = kept
    way = [made(leases.Leased), made(leases.Queued, input=given), made(leases.Delivered, output=output, proof=proof)]
    return leases.rebuild(LEASE, way)


async def test_an_answer_that_is_never_paid_is_not_kept_for_ever(tmp_path: Path) -> None:
    blobs, _, kept = await content(tmp_path / "blobs")
    await sweep(blobs, [], [(unpaid(kept), RESULT_KEPT_MS)])
    assert await there(blobs, kept) == [False, False, True]
    await sweep(blobs, [], [(unpaid(kept), PROOF_KEPT_MS)])
    assert await there(blobs, kept) == [False, False, False]


async def test_what_was_kept_again_a_moment_ago_stays(tmp_path: Path) -> None:
    """Outputs of different jobs may be the same bytes: one job's end must not take the other's answer, which is not written down yet."""
    blobs, _, kept = await content(tmp_path / "blobs")
    assert await blobs.put(b"output") == kept[1]
    await sweep(blobs, [], [(unpaid(kept), RESULT_KEPT_MS)])
    assert await there(blobs, kept) == [False, True, True]


async def test_what_nobody_names_any_more_goes_after_a_month(tmp_path: Path) -> None:
    blobs, age, kept = await content(tmp_path / "blobs")
    age.now += 29 * 24 * HOUR_S
    await sweep(blobs, [], [])
    assert await there(blobs, kept) == [True, True, True]
    age.now += 2 * 24 * HOUR_S
    await sweep(blobs, [], [])
    assert await there(blobs, kept) == [False, False, False]


async def test_files_from_the_future_are_as_new_as_can_be(tmp_path: Path) -> None:
    """A ledger that was restored is younger than its files are; without this nothing of them would go before it has caught up."""
    _, _, kept = await content(tmp_path / "blobs")
    age = Age(10.0)
    blobs = BlobStore(tmp_path / "blobs", age_s=age)
    assert await blobs.unused(60) == []
    age.now += 61
    assert sorted(await blobs.unused(60)) == sorted(kept)


async def upkeep(*every: Trader) -> None:
    for one in every:
        await sweep(one.blobs, one.requester.jobs.aged(), one.worker.leases.aged())
        await one.requester.forget()
        await one.worker.book.forget()


def clock_set_by(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    real_ns: Callable[[], int] = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + days * DAY_NS)
    monkeypatch.setattr(time, "time", lambda: (real_ns() + days * DAY_NS) / 1e9)


@pytest.mark.parametrize("days", [1, 400, -400])
async def test_a_wall_clock_that_jumps_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        job = await ended(alder, await alder.requester.submit(order()))
        assert job.attempt.output is not None
        assert job.attempt.proof is not None
        clock_set_by(monkeypatch, days)
        await upkeep(alder, birch)
        for one in (birch, alder):  # the jump is there at a start as well
            port = one.server.port
            await one.stop()
            await one.start(port)
        await upkeep(alder, birch)
        for digest in (job.input, job.attempt.output, job.attempt.proof):
            assert await alder.blobs.has(digest)
            assert await birch.blobs.has(digest)
        connection = alder.connection(birch.key.id)
        assert connection is not None
        assert (await connection.result(job.attempt.lease)).output == await alder.blobs.get(job.attempt.output)
        assert alder.requester.jobs[job.id].phase is Phase.SETTLED
        # What was done under the wrong clock ends like everything else.
        again = await ended(alder, await alder.requester.submit(order()))
        monkeypatch.undo()
        assert alder.requester.workers.experience[birch.key.id].successes > 1_900_000
        for one in (alder, birch):
            one.waited_ms = RESULT_KEPT_MS
        await upkeep(alder, birch)
        assert [*alder.requester.jobs, *birch.worker.leases] == []
        assert not await alder.blobs.has(again.input)
        for one in (alder, birch):
            assert (await one.ledger.verify()).faults == ()


async def test_a_stop_makes_nothing_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could have fetched anything meanwhile."""
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        await ended(alder, await alder.requester.submit(order()))
        birch.waited_ms = RESULT_KEPT_MS // 2
        port = birch.server.port
        await birch.stop()
        clock_set_by(monkeypatch, 7)
        await birch.start(port)
        monkeypatch.undo()
        await upkeep(birch)
        (lease,) = birch.worker.leases
        assert lease.output is not None
        assert await birch.blobs.has(lease.output)
        # The time before the stop counts.
        birch.waited_ms += RESULT_KEPT_MS // 2
        await upkeep(birch)
        assert not await birch.blobs.has(lease.output)


async def test_who_was_excluded_and_who_was_proven_is_known_after_its_jobs_are_forgotten(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        await ended(alder, await alder.requester.submit(order()))
        birch.local.spoil = lambda answer: replace(answer, proof=answer.proof[:-1] + bytes([answer.proof[-1] ^ 1]))
        false = await alder.requester.submit(order())
        while not alder.requester.workers.excludes(birch.key.id):
            await asyncio.sleep(0.01)
        await ended(alder, await alder.requester.cancel(false.id))
        before = alder.requester.workers.experience
        alder.waited_ms = RESULT_KEPT_MS
        await upkeep(alder)
        port = alder.server.port
        await alder.stop()
        await alder.start(port)
        assert list(alder.requester.jobs) == []
        assert alder.requester.workers.excludes(birch.key.id)
        found, known = alder.requester.workers.experience[birch.key.id], before[birch.key.id]
        assert found == replace(known, at=found.at)
