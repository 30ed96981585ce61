"""Commands of a node in a process that measure it: `benches/mesh.py` asks for them."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from nexus_edge.agent import Agent
from nexus_edge.compute.library import Job as Task
from nexus_edge.ledger import Transaction
from nexus_edge.market.jobs import Phase
from nexus_edge.market.ordering import Order
from nexus_edge.types import Digest, MicroCredits

T = TypeVar("T")

ANSWERED = (Phase.VERIFIED, Phase.PAYING, Phase.SETTLED)
LAG_S = 0.005
"""How often the loop is asked whether it is late."""


class Timing:
    """What a node says of its own times, in milliseconds."""

    agent: Agent
    data: bytes
    model: Any
    _commits: list[float]
    _lags: list[float]
    _watching: asyncio.Task[None] | None = None

    async def do_watch(self) -> Any:
        """From now on time every commit from its call to its return, and how late the loop wakes."""
        self._commits, self._lags = [], []
        transact = self.agent.ledger.transact

        async def timed(name: str, work: Callable[[Transaction], T]) -> T:
            began = time.perf_counter()
            try:
                return await transact(name, work)
            finally:
                self._commits.append(1000 * (time.perf_counter() - began))

        self.agent.ledger.transact = timed  # type: ignore[method-assign]
        self._watching = asyncio.create_task(self._watch_loop(), name="loop lag")
        return {}

    async def _watch_loop(self) -> None:
        while True:
            due = time.perf_counter() + LAG_S
            await asyncio.sleep(LAG_S)
            self._lags.append(1000 * max(0.0, time.perf_counter() - due))

    async def unwatch(self) -> None:
        """Stop, if it was begun."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def do_measured(self) -> Any:
        """Commits and lags since the last time."""
        found = {"commits": self._commits[:], "lags": self._lags[:]}
        self._commits.clear()
        self._lags.clear()
        return found

    async def do_up(self, timeout_s: float = 30) -> Any:
        """Wait for a peer that is up; when that was, on the clock that all processes share, or null."""
        try:
            async with asyncio.timeout(timeout_s):
                with self.agent.directory.watch() as changes:
                    while not self.agent.directory.up():
                        await anext(aiter(changes))
        except TimeoutError:
            return {"at": None}
        return {"at": time.perf_counter()}

    async def do_times(self, count: int) -> Any:
        """Jobs one after the other: until the answer is verified, until the payment is acknowledged, and what the prover said it took."""
        requester = self.agent.requester
        rows = []
        for _ in range(count):
            began = time.perf_counter()
            job = (await requester.submit(self._order())).id
            await requester.jobs.changed(lambda job=job: requester.jobs[job].phase in ANSWERED or requester.jobs[job].phase.is_final, 60)  # type: ignore[misc]
            answered = time.perf_counter()
            done = await requester.wait(job, 60)
            settled = time.perf_counter()
            assert done.phase is Phase.SETTLED, done
            rows.append((1000 * (answered - began), 1000 * (settled - began), done.verify_ms))
        return rows

    async def do_rate(self, count: int, at_once: int) -> Any:
        """So many jobs, so many open at once: seconds until all are settled."""
        requester = self.agent.requester
        slots = asyncio.Semaphore(at_once)

        async def one() -> Phase:
            async with slots:
                job = (await requester.submit(self._order())).id
                return (await requester.wait(job, 120)).phase

        began = time.perf_counter()
        phases = await asyncio.gather(*(one() for _ in range(count)))
        return {"seconds": time.perf_counter() - began, "settled": phases.count(Phase.SETTLED)}

    async def do_bare(self, count: int) -> Any:
        """The same job without the mesh: run, proved and verified in the same child, and verified once more as a requester does."""
        library, workshop = self.agent.library, self.agent.workshop
        rows = []
        for _ in range(count):
            inc, upload = await workshop.commit(self.model.model, self.data)
            task = Task(self.model.model, upload.data, upload.seed, upload.openings, inc, Digest(bytes(32)), False, bytes(32))
            began = time.perf_counter()
            proved = await library.prove(task, deadline_s=60)
            took = 1000 * (time.perf_counter() - began)
            rows.append((took, (proved.run_us + proved.prove_us) / 1000))
        return rows

    def _order(self) -> Order:
        return Order(self.model.model, self.model.semantics, self.model.params, self.data, MicroCredits(100_000), 120_000)
