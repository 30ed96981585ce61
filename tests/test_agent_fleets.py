"""Two whole agents, one of which serves the other's fleet: what that changes, and where it is shown."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from nexus_edge.agent import Agent, Options
from nexus_edge.commands.views import status_lines
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.discovery import Source
from nexus_edge.discovery.reachability import State
from nexus_edge.identity import NodeKey, format_node_id, short_id
from nexus_edge.ledger import CreditPolicy, Group, Member
from nexus_edge.market.jobs import Job, Phase
from nexus_edge.market.ordering import Order
from nexus_edge.market.placement import WORDS, Unfit
from nexus_edge.types import MicroCredits, UnixMs
from tests.support.fleets import OWNER, certificate_file, serving

pytestmark = pytest.mark.asyncio

ALDER, BIRCH = NodeKey.from_seed(b"alder".ljust(32)), NodeKey.from_seed(b"birch".ljust(32))
BUCKET = 2
"""Micro-credits: no job is so cheap."""


@asynccontextmanager
async def agents(folder: Path, policy: CreditPolicy, certificate: Path) -> AsyncIterator[tuple[Agent, Agent]]:
    """Alder, who asks and has a place for a certificate, and birch, who works."""
    birch = Agent(BIRCH, Options(folder / "birch", host="127.0.0.1", mdns=False, credit=policy))
    await birch.start()
    peers = (("127.0.0.1", birch.server.port, BIRCH.id),)
    alder = Agent(ALDER, Options(folder / "alder", host="127.0.0.1", mdns=False, serve=False, peers=peers, certificates=(certificate,)))
    try:
        await alder.start()
        with alder.directory.watch() as changes:
            while [peer.state for peer in alder.directory.snapshot()] != [State.UP]:
                await anext(changes)
        yield alder, birch
    finally:
        await alder.close()
        await birch.close()


async def test_members_are_asked_first(tmp_path: Path) -> None:
    """Of many peers only some are asked: a member is among them, however far it is."""
    async with agents(tmp_path, CreditPolicy(), tmp_path / "none") as (alder, birch):
        cedar = Agent(NodeKey.generate(), Options(tmp_path / "cedar", host="127.0.0.1", mdns=False))
        await cedar.start()
        try:
            alder.directory.add_hint(Source.STATIC, "127.0.0.1", cedar.server.port, cedar.key.id)
            with alder.directory.watch() as changes:
                while len(alder.up()) < 2:
                    await anext(changes)
            for agent in (birch, cedar):
                alder.fleet._members = {agent.key.id: Member(agent.key.id, Group(OWNER.id), UnixMs(2**52))}
                assert alder.up()[0].id == agent.key.id
        finally:
            await cedar.close()


async def asked(agent: Agent, folder: Path, *, deadline_ms: int = 30_000) -> Job:
    """One job, once it has ended."""
    file = folder / "digits.tflite"
    file.write_bytes(demo_model())
    record = await agent.library.import_file(file, "zk-100", "digits")
    data = demo_digits()[0][0].astype(np.int8).tobytes()
    job = await agent.requester.submit(Order(record.model, record.semantics, record.params, data, MicroCredits(100_000), deadline_ms))
    return await agent.requester.wait(job.id, 60)


@pytest.mark.timeout(120)
async def test_a_member_is_served_beyond_the_bucket_and_a_stranger_is_not(tmp_path: Path) -> None:
    place = tmp_path / "member.cert"
    async with agents(tmp_path, serving(bucket=BUCKET, cap=BUCKET), place) as (alder, birch):
        refused = await asked(alder, tmp_path, deadline_ms=4000)
        assert (refused.phase, WORDS[Unfit.CREDIT] in refused.reason) == (Phase.FAILED, True), refused

        # The owner's certificate arrives, and nobody is restarted.
        certificate_file(tmp_path, ALDER.id, days=2)
        await alder.fleet.round()
        served = await asked(alder, tmp_path)
        assert (served.phase, served.paid > BUCKET) == (Phase.SETTLED, True), served
        book = await birch.ledger.read(lambda reader: reader.book(ALDER.id))
        assert book.exposure == served.paid

        seen = await birch.administration.snapshot()
        (fleet,) = seen.fleets
        assert (fleet.key, fleet.name, fleet.members, fleet.line_ucr) == (format_node_id(OWNER.id), short_id(OWNER.id), 1, None)
        assert fleet.exposure_ucr == served.paid
        (peer,) = await birch.administration.peers()
        assert (peer.fleet, peer.fleet_until is None) == (short_id(OWNER.id), False)
        (view,) = (await birch.administration.ledger()).books
        assert view.fleet == short_id(OWNER.id)
        assert any("fleets" in line and "1 member" in line and "without a bound" in line for line in status_lines(seen))

        own = await alder.administration.snapshot()
        (mine,) = own.certificates
        assert (mine.file, mine.key) == (str(place), format_node_id(OWNER.id))
        assert "have it renewed" in mine.problem
        assert [one.text for one in own.attention if "certificate" in one.text] == [f"the group certificate member.cert: {mine.problem}"]
        assert any(f"this node in {short_id(OWNER.id)} until" in line for line in status_lines(own))
