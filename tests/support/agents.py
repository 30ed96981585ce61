"""Two whole agents in this process, on real sockets: alder asks, birch works."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nexus_edge.agent import Agent, Options
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.discovery.reachability import State
from nexus_edge.identity import NodeKey
from nexus_edge.market.jobs import Job
from nexus_edge.market.ordering import Order
from nexus_edge.types import MicroCredits

ALDER, BIRCH = NodeKey.from_seed(b"alder".ljust(32)), NodeKey.from_seed(b"birch".ljust(32))
PRICE = MicroCredits(100_000)


@asynccontextmanager
async def alder_and_birch(folder: Path, **of_birch: Any) -> AsyncIterator[tuple[Agent, Agent]]:
    """Until both see each other: birch is told nothing, alder where birch is."""
    birch = Agent(BIRCH, Options(folder / "birch", **{"name": "birch", "host": "127.0.0.1", "mdns": False, **of_birch}))
    await birch.start()
    peers = (("127.0.0.1", birch.server.port, None),)
    alder = Agent(ALDER, Options(folder / "alder", name="alder", host="127.0.0.1", mdns=False, peers=peers))
    try:
        await alder.start()
        for agent in (alder, birch):
            with agent.directory.watch() as changes:
                async with asyncio.timeout(20):
                    while [peer.state for peer in agent.directory.snapshot()] != [State.UP]:
                        await anext(changes)
        yield alder, birch
    finally:
        await alder.close()
        await birch.close()


async def ordered(agent: Agent, folder: Path, *, deadline_ms: int = 60_000) -> Job:
    """A job of the digits model."""
    file = folder / "digits.tflite"
    file.write_bytes(demo_model())
    record = await agent.library.import_file(file, "zk-100", "digits")
    data = demo_digits()[0][0].astype(np.int8).tobytes()
    return await agent.requester.submit(Order(record.model, record.semantics, record.params, data, PRICE, deadline_ms))
