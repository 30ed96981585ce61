"""Commands that make a node grow old, or do what no honest node does with its entries."""

import asyncio
from dataclasses import replace
from typing import Any

from nexus_edge.agent import Agent
from nexus_edge.errors import PeerError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import Book
from nexus_edge.market.settling import Till
from nexus_edge.transport import Caller
from nexus_edge.types import MicroCredits, NodeId
from nexus_edge.wire.messages import EntriesAnswer
from nexus_edge.wire.objects import Entry
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, sign


class Owning:
    """What becomes of entries and old jobs."""

    agent: Agent
    key: NodeKey

    async def do_grow_old(self, ms: int) -> Any:
        """As if it had been up for so long, and nothing had come meanwhile."""
        self.agent.ledger._born += ms
        return {}

    async def do_sweep(self) -> Any:
        """What is done once an hour."""
        await self.agent._sweep()
        return {}

    async def do_written_off(self, peer: str, amount: int, timeout_s: float = 30) -> Any:
        """Wait until so much of what a peer owes has been given up, and it is not more."""
        async with asyncio.timeout(timeout_s):
            while not (given := (await self._book(peer)).standing.written_off):
                await asyncio.sleep(0.05)
        return {"is": given == amount}

    async def _book(self, peer: str) -> Book:
        return await self.agent.ledger.read(lambda reader: reader.book(NodeId(bytes.fromhex(peer))))

    async def do_lease_is(self, state: str, timeout_s: float = 30) -> Any:
        """Wait until a lease of ours is in a state."""
        leases = self.agent.worker.leases
        return {"is": await leases.changed(lambda: any(lease.state.value == state for lease in leases), timeout_s)}

    async def do_refuse_entries(self, code: str, count: int) -> Any:
        """Answer the next posts of entries with a refusal, and the last entry that is really held."""
        take, left = Till.entries, count

        async def refuse(till: Till, caller: Caller, entries: tuple[Signed[Entry], ...]) -> EntriesAnswer:
            nonlocal left
            left -= 1
            if left < 0:
                return await take(till, caller, entries)
            last = await self.agent.ledger.read(lambda reader: reader.last_entry(caller.peer, reader.own))
            raise Refusal(Code(code), "it is refused whatever it is", last=last)

        Till.entries = refuse  # type: ignore[method-assign,assignment]
        return {}

    async def do_fork(self, peer: str) -> Any:
        """Sign another entry under the number of the last one, and post it: the code of the refusal."""
        other = NodeId(bytes.fromhex(peer))
        last = await self.agent.ledger.read(lambda reader: reader.last_entry(self.key.id, other))
        connection = self.agent.connection(other)
        if last is None or connection is None:
            return {"code": "nothing to fork"}
        forged = sign(self.key, replace(last.object, amt=MicroCredits(last.object.amt + 1)))
        try:
            await connection.entries((forged,))
        except Refusal as refused:
            return {"code": refused.code.value}
        except PeerError as lost:
            return {"code": str(lost)}
        return {"code": ""}
