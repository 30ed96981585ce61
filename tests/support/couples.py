"""Two whole agents in this process: one asks, the other works in real children."""

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


@asynccontextmanager
async def couple(folder: Path, **worker: Any) -> AsyncIterator[tuple[Agent, Agent]]:
    """Until both see each other: birch, which has these options, is told nothing and hears nobody; alder is told where birch is."""
    birch = Agent(BIRCH, Options(folder / "birch", **{"name": "birch", "host": "127.0.0.1", "mdns": False, **worker}))
    await birch.start()
    peers = (("127.0.0.1", birch.server.port, None),)
    alder = Agent(ALDER, Options(folder / "alder", name="alder", host="127.0.0.1", mdns=False, peers=peers))
    try:
        await alder.start()
        for agent, mutual in ((alder, {True}), (birch, {True, None})):
            with agent.directory.watch() as changes:
                async with asyncio.timeout(30):
                    while not any(peer.state is State.UP and peer.mutual in mutual for peer in agent.directory.snapshot()):
                        await anext(changes)
        yield alder, birch
    finally:
        await alder.close()
        await birch.close()


async def submitted(alder: Agent, deadline_ms: int = 60_000) -> Job:
    """A new job of the digits' model."""
    file = alder.options.state / "digits.tflite"
    file.write_bytes(demo_model())
    record = await alder.library.import_file(file, "zk-100", "digits")
    data = demo_digits()[0][0].astype(np.int8).tobytes()
    order = Order(record.model, record.semantics, record.params, data, MicroCredits(100_000), deadline_ms)
    return await alder.requester.submit(order)


async def done(alder: Agent, job: Job) -> Job:
    """The job at its end."""
    found = await alder.requester.wait(job.id, 90)
    assert found.phase.is_final, found
    return found
