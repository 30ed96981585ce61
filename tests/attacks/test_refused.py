"""What whole agents refuse whom: quotes that are old, nodes that lied, and models that nobody asked for."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nexus_edge.agent import Agent
from nexus_edge.data import demo_digits
from nexus_edge.market.jobs import Job, Outcome, Phase
from nexus_edge.market.running import Answer
from nexus_edge.proofs.wired import commit_inputs
from nexus_edge.transport import PeerConnection
from nexus_edge.types import Digest, MicroCredits, NodeId
from nexus_edge.wire.digests import blob_digest
from nexus_edge.wire.messages import Chunk, Manifest, QuoteRequest, Upload
from nexus_edge.wire.objects import Lease, Mode, Quote
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed
from tests.attacks.test_market import lease_of
from tests.support.couples import ALDER, BIRCH, couple, done, submitted

pytestmark = pytest.mark.asyncio


def way(asking: Agent, peer: NodeId) -> PeerConnection:
    found = asking.connection(peer)
    assert found is not None
    return found


def wanted(job: Job) -> QuoteRequest:
    return QuoteRequest(
        os.urandom(16), Digest(job.model), job.sem, job.params, Mode.PROVED.value, job.input_bytes, MicroCredits(100_000), 60_000
    )


async def lease_on(asking: Agent, quote: Signed[Quote]) -> Signed[Lease]:
    """A good lease on this quote, over a commitment that is good too."""
    (record,) = asking.library.records()
    held = commit_inputs(await asking.workshop.key(record.model), [demo_digits()[0][0]])
    return lease_of(asking, quote, held.inc)


async def refused(asked: Awaitable[object]) -> Code:
    with pytest.raises(Refusal) as refusal:
        await asked
    return refusal.value.code


async def test_a_quote_holds_for_its_time_and_no_longer_than_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with couple(tmp_path) as (alder, birch):
        job = await done(alder, await submitted(alder))
        quote = await way(alder, BIRCH.id).quote(wanted(job))
        monkeypatch.setattr("nexus_edge.market.quoting.TTL_MS", 50)
        await asyncio.sleep(0.2)
        assert await refused(way(alder, BIRCH.id).lease(await lease_on(alder, quote), quote)) is Code.QUOTE_EXPIRED
        monkeypatch.undo()
        quote = await way(alder, BIRCH.id).quote(wanted(job))
        again = Agent(BIRCH, replace(birch.options, port=birch.server.port))
        await birch.close()
        await again.start()
        try:
            assert await refused(way(alder, BIRCH.id).lease(await lease_on(alder, quote), quote)) is Code.QUOTE_EXPIRED
            fresh = await way(alder, BIRCH.id).quote(wanted(job))
            assert (await way(alder, BIRCH.id).lease(await lease_on(alder, fresh), fresh)).object.to == ALDER.id
        finally:
            await again.close()


async def test_one_who_sent_a_false_proof_is_no_customer_any_more_but_may_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with couple(tmp_path) as (alder, birch):
        job = await done(alder, await submitted(alder))
        quote = await way(birch, ALDER.id).quote(wanted(job))
        honest = birch.workshop.prove

        async def lie(order: Any, progress: Callable[[str, int], None]) -> Answer:
            answer = await honest(order, progress)
            return replace(answer, proof=answer.proof[:-1] + bytes([answer.proof[-1] ^ 1]))

        monkeypatch.setattr(birch.workshop, "prove", lie)
        caught = await done(alder, await submitted(alder, 3000))
        assert (caught.phase, caught.attempts[0].outcome) == (Phase.FAILED, Outcome.INVALID)
        upload = Upload(Manifest(5, (blob_digest(b"model"),)), None)

        async def all_is_refused(alder: Agent) -> None:
            assert await refused(way(birch, ALDER.id).quote(wanted(job))) is Code.EXCLUDED
            assert await refused(way(birch, ALDER.id).lease(await lease_on(birch, quote), quote)) is Code.EXCLUDED
            assert await refused(way(birch, ALDER.id).put_object(Digest(bytes(32)), upload)) is Code.EXCLUDED
            assert (await way(birch, ALDER.id).entries(())).acks == ()
            assert list(alder.worker.leases) == []

        await all_is_refused(alder)
        again = Agent(ALDER, replace(alder.options, port=alder.server.port))
        await alder.close()
        await again.start()
        try:
            await all_is_refused(again)
        finally:
            await again.close()


async def test_a_model_that_no_quote_named_is_not_taken(tmp_path: Path) -> None:
    async with couple(tmp_path) as (alder, birch):
        content = b"a model that nobody asked for"
        manifest, digest = Manifest(len(content), (blob_digest(content),)), Digest(os.urandom(32))
        for upload in (Upload(manifest, None), Upload(None, Chunk(0, content))):
            assert await refused(way(alder, BIRCH.id).put_object(digest, upload)) is Code.NOT_YOURS
        # Nor under the name of one that somebody else was asked for.
        job = await done(alder, await submitted(alder))
        birch.library.invite(ALDER.id, job.model, job.params)
        assert await refused(way(alder, BIRCH.id).put_object(digest, Upload(manifest, None))) is Code.NOT_YOURS
        other = NodeId(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
        unknown = Digest(os.urandom(32))
        birch.library.invite(other, type(job.model)(unknown), job.params)
        assert await refused(way(alder, BIRCH.id).put_object(unknown, Upload(manifest, None))) is Code.NOT_YOURS
