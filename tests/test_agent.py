"""Whole agents on real sockets."""

import asyncio
from pathlib import Path

import pytest

from nexus_edge.agent import Agent, Options
from nexus_edge.discovery.reachability import State
from nexus_edge.identity import NodeKey

ALDER, BIRCH = NodeKey.from_seed(b"alder".ljust(32)), NodeKey.from_seed(b"birch".ljust(32))


@pytest.mark.asyncio
async def test_one_who_dials_us_is_a_peer_of_ours(tmp_path: Path) -> None:
    """A worker that is told nothing and hears nobody: whoever dials it and answers at its own port is in its table."""
    birch = Agent(BIRCH, Options(tmp_path / "birch", host="127.0.0.1", mdns=False))
    await birch.start()
    alder = Agent(ALDER, Options(tmp_path / "alder", host="127.0.0.1", mdns=False, peers=(("127.0.0.1", birch.server.port, None),)))
    try:
        await alder.start()
        with birch.directory.watch() as changes:
            async with asyncio.timeout(10):
                while [peer.state for peer in birch.directory.snapshot()] != [State.UP]:
                    await anext(changes)
        (seen,) = birch.directory.snapshot()
        assert (seen.id, seen.found_by.value, seen.reach) == (ALDER.id, "caller", "both")
        assert [address.endpoint for address in seen.addresses] == [("127.0.0.1", alder.server.port)]
    finally:
        await alder.close()
        await birch.close()
