"""What is kept of a job, and for how long."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nexus_edge.ledger import BlobStore
from nexus_edge.market import jobs, leases
from nexus_edge.market.keeping import sweep
from nexus_edge.types import Digest, UnixMs
from nexus_edge.wire.limits import PROOF_KEPT_MS, RESULT_KEPT_MS
from tests.market.test_states import JOB, made

LEASE = Digest(b"\7" * 32)


def _age(folder: Path, hours: int) -> None:
    for file in folder.iterdir():
        os.utime(file, times=(time.time() - 3600 * hours,) * 2)


@pytest.mark.asyncio
async def test_answers_stay_a_day_and_proofs_a_month(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    given, output, proof = [await blobs.put(content) for content in (b"input", b"output", b"proof")]
    _age(tmp_path / "blobs", hours=2)
    way = [
        made(jobs.Created, input=given), made(jobs.Offered), made(jobs.Accepted), made(jobs.Delivered, output=output, proof=proof),
        made(jobs.Verified), made(jobs.Paying), made(jobs.Settled, at=1000),
    ]  # fmt: skip
    done, running = jobs.rebuild(JOB, way), jobs.rebuild(JOB, way[:4])

    async def left(*held: jobs.Job, at: int) -> list[bool]:
        await sweep(blobs, held, [], UnixMs(at))
        return [await blobs.has(digest) for digest in (given, output, proof)]

    assert await left(done, at=RESULT_KEPT_MS) == [True, True, True]
    assert await left(done, running, at=10 * PROOF_KEPT_MS) == [True, True, True]
    assert await left(done, replace(running, input=proof, attempts=()), at=1000 + RESULT_KEPT_MS) == [False, False, True]
    assert await left(done, at=1000 + PROOF_KEPT_MS) == [False, False, False]


async def delivered(folder: Path) -> tuple[BlobStore, leases.LeaseState, list[Digest]]:
    """A lease that was delivered at 1000 and waits for its payment; input, output and proof are two hours old."""
    blobs = BlobStore(folder)
    given, output, proof = [await blobs.put(content) for content in (b"input", b"output", b"proof")]
    _age(folder, hours=2)
    way = [made(leases.Leased), made(leases.Queued, input=given), made(leases.Delivered, at=1000, output=output, proof=proof)]
    return blobs, leases.rebuild(LEASE, way), [given, output, proof]


@pytest.mark.asyncio
async def test_an_answer_that_is_never_paid_is_not_kept_for_ever(tmp_path: Path) -> None:
    blobs, unpaid, (given, output, proof) = await delivered(tmp_path / "blobs")
    await sweep(blobs, [], [unpaid], UnixMs(1000 + RESULT_KEPT_MS))
    assert [await blobs.has(digest) for digest in (given, output, proof)] == [False, False, True]
    await sweep(blobs, [], [unpaid], UnixMs(1000 + PROOF_KEPT_MS))
    assert not await blobs.has(proof)


@pytest.mark.asyncio
async def test_what_was_kept_again_a_moment_ago_stays(tmp_path: Path) -> None:
    """Outputs of different jobs may be the same bytes: one job's end must not take the other's answer, which is not written down yet."""
    blobs, unpaid, (given, output, _) = await delivered(tmp_path / "blobs")
    assert await blobs.put(b"output") == output
    await sweep(blobs, [], [unpaid], UnixMs(1000 + RESULT_KEPT_MS))
    assert [await blobs.has(digest) for digest in (given, output)] == [False, True]


@pytest.mark.asyncio
async def test_what_nobody_names_any_more_goes_after_a_month(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    lost = await blobs.put(b"of a job that a crash took back")
    _age(tmp_path / "blobs", hours=24 * 29)
    await sweep(blobs, [], [], UnixMs(0))
    assert await blobs.has(lost)
    _age(tmp_path / "blobs", hours=24 * 31)
    await sweep(blobs, [], [], UnixMs(0))
    assert not await blobs.has(lost)
