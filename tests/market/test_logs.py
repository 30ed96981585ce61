"""What the log says of jobs: every line names the job, the lease and the peer, in the same words on both sides."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from nexus_edge.identity import short_id
from nexus_edge.logging import Ring, configure
from nexus_edge.market.jobs import Phase
from tests.attacks.test_market import wrong_output
from tests.market.test_trade import ended, order
from tests.support.trade import traders

pytestmark = pytest.mark.asyncio


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    configure(level="info", form="json", stream=stream, ring=Ring())
    try:
        yield stream
    finally:
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)


def of_market(written: io.StringIO) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in written.getvalue().splitlines()]
    return [record for record in records if record["logger"] == "market"]


async def test_every_line_of_a_job_names_it_and_the_peer(tmp_path: Path, written: io.StringIO) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        job = await ended(alder, await alder.requester.submit(order()))
        assert job.phase is Phase.SETTLED
        birch.local.spoil = wrong_output
        refused = await ended(alder, await alder.requester.submit(order(deadline_ms=3000)))
        assert refused.phase is Phase.FAILED
        found = of_market(written)
        ids = {f"j-{one.id.hex()[:8]}": one for one in (job, refused)}
        assert {record["event"] for record in found} == {
            "leased",
            "delivered",
            "verified",
            "settled",
            "a false proof is refused",
            "attempt ended",
        }
        for record in found:
            one = ids[record["job"]]
            assert record["peer"] in (short_id(alder.key.id), short_id(birch.key.id)), record
            assert record.get("lease", one.attempt.lease.hex()[:8]) == one.attempt.lease.hex()[:8], record
        sides = {(record["event"], record["peer"]) for record in found}
        assert {("leased", short_id(alder.key.id)), ("delivered", short_id(alder.key.id)), ("verified", short_id(birch.key.id))} <= sides
