"""Commands that make a node do a job badly: what others write down then is what a test kills them at."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nexus_edge.agent import Agent
from nexus_edge.market.running import Answer, Died, Order
from nexus_edge.wire.refusals import Code, Refusal


class Misbehaving:
    """A worker for a while."""

    agent: Agent

    async def do_misbehave(self, how: str, count: int = 1) -> Any:
        """The next so many leases are declined, or their work fails, hangs, is slow, or ends in a false proof; then the node is as it was."""
        letting, workshop = self.agent.worker.letting, self.agent.workshop
        take, prove, left = letting.take, workshop.prove, count

        async def decline(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                return await take(*given, **named)
            raise Refusal(Code.BUSY, "not today", retry_ms=1)

        async def badly(order: Order, progress: Callable[[str, int], None]) -> Answer:
            nonlocal left
            left -= 1
            if left < 0:
                return await prove(order, progress)
            if how == "fail":
                raise Died("the child died", "as it was told", again=False)
            if how == "hang":
                await asyncio.Event().wait()
            if how == "slow":
                await asyncio.sleep(1)
                return await prove(order, progress)
            answer = await prove(order, progress)
            return replace(answer, proof=answer.proof[:-1] + bytes([answer.proof[-1] ^ 1]))

        if how == "decline":
            letting.take = decline  # type: ignore[method-assign]
        else:
            workshop.prove = badly  # type: ignore[method-assign]
        return {}
