"""What is kept of a job, and for how long."""

from dataclasses import replace
from pathlib import Path

import pytest

from nexus_edge.ledger import BlobStore
from nexus_edge.market import jobs
from nexus_edge.market.keeping import sweep
from nexus_edge.types import UnixMs
from nexus_edge.wire.limits import PROOF_KEPT_MS, RESULT_KEPT_MS
from tests.market.test_states import JOB, made


@pytest.mark.asyncio
async def test_answers_stay_a_day_and_proofs_a_month(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    given, output, proof = [await blobs.put(content) for content in (b"input", b"output", b"proof")]
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
