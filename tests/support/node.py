"""A real agent in a process of its own, which a test drives by lines of JSON, and which can be made to die at a commit.

`main` takes one object: `folder`, `seed` (hexadecimal), `port`, `peers` (host, port, seed), `groups` (seeds of owners), `certificates` (files), and
`crash` (name and point of a commit, and the how-manyth). Commands come on standard input, answers leave on standard output.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from nexus_edge.agent import Agent, Options
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import CreditPolicy, Group
from nexus_edge.market.jobs import Job
from nexus_edge.market.ordering import Order
from nexus_edge.types import JobId, MicroCredits
from tests.support.misbehaving import Misbehaving
from tests.support.owning import Owning
from tests.support.processes import SETTLED
from tests.support.timing import Timing

PRICE = MicroCredits(100_000)


class Crash:
    """Ends the process at one commit, as a loss of power would: nothing is flushed that is not on the disk."""

    def __init__(self, name: str = "", point: str = "", nth: int = 1) -> None:
        self.at(name, point, nth)

    def at(self, name: str, point: str, nth: int = 1) -> None:
        """End it at this one; without a name at none."""
        self._where = (name, point)
        self._left = nth

    def __call__(self, name: str, point: str) -> None:
        if (name, point) == self._where:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Node(Timing, Misbehaving, Owning):
    """The agent and its commands."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.key = NodeKey.from_seed(bytes.fromhex(given["seed"]))
        self.folder = Path(given["folder"])
        peers = tuple((host, port, NodeKey.from_seed(bytes.fromhex(seed)).id) for host, port, seed in given["peers"])
        credit = CreditPolicy(*[MicroCredits(limit) for limit in given["credit"]]) if given.get("credit") else CreditPolicy()
        credit = replace(credit, groups=tuple(Group(NodeKey.from_seed(bytes.fromhex(seed)).id) for seed in given.get("groups", ())))
        options = Options(
            self.folder, host=given.get("host", "127.0.0.1"), port=given["port"], mdns=given.get("mdns", False), peers=peers, credit=credit,
            certificates=tuple(map(Path, given.get("certificates", ()))), socket=Path(given["socket"]) if given.get("socket") else None,
        )  # fmt: skip
        self.crash = Crash(*(given.get("crash") or ()))
        self.agent = Agent(self.key, options, self.crash)
        self.data = demo_digits()[0][0].astype(np.int8).tobytes()

    async def run(self) -> None:
        """Until standard input ends."""
        await self.agent.start()
        self.model = await self._model()
        say({"ready": True, "port": self.agent.server.port, "node": self.key.id.hex()})
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            command = json.loads(line)
            say(await getattr(self, f"do_{command.pop('do')}")(**command))
        await self.unwatch()
        await self.agent.close()

    async def _model(self) -> Any:
        found = [record for record in self.agent.library.records() if record.name == "digits"]
        if found:
            return found[0]
        file = self.folder / "digits.tflite"
        file.write_bytes(demo_model())
        return await self.agent.library.import_file(file, "zk-100", "digits")

    async def do_submit(self, count: int = 1, deadline_ms: int = 60_000, **more: Any) -> Any:
        jobs = []
        for _ in range(count):
            order = Order(self.model.model, self.model.semantics, self.model.params, self.data, PRICE, deadline_ms, **more)
            jobs.append((await self.agent.requester.submit(order)).id.hex())
        return {"jobs": jobs}

    async def do_cancel(self, job: str) -> Any:
        return show(await self.agent.requester.cancel(JobId(bytes.fromhex(job))))

    async def do_crash(self, name: str, point: str) -> Any:
        """Die at the next commit of this name, which is not one of a start."""
        self.crash.at(name, point)
        return {}

    async def do_phase(self, job: str, phase: str, timeout_s: float = 30) -> Any:
        """Wait for a job to be in a phase."""
        requester, name = self.agent.requester, JobId(bytes.fromhex(job))
        return {"is": await requester.jobs.changed(lambda: requester.jobs[name].phase.value == phase, timeout_s)}

    async def do_open(self) -> Any:
        """How many jobs have not ended."""
        return {"open": sum(not job.phase.is_final for job in self.agent.requester.jobs)}

    async def do_settle(self, timeout_s: float = 60) -> Any:
        """Wait until every job has ended, ours and others', and every entry is acknowledged; what has not."""
        requester, worker = self.agent.requester, self.agent.worker
        await requester.jobs.changed(lambda: all(job.phase.is_final for job in requester.jobs), timeout_s)
        # One that was sent twice, or whose requester died meanwhile, may have been left here: it ends when no input comes.
        await worker.leases.changed(lambda: not any(lease.state.is_open for lease in worker.leases), timeout_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while await self.agent.ledger.read(lambda reader: reader.debts()):
                    await asyncio.sleep(0.02)
        open_jobs = [show(job) for job in requester.jobs if not job.phase.is_final]
        debts = [creditor.hex() for creditor in await self.agent.ledger.read(lambda reader: reader.debts())]
        if not open_jobs and not debts:
            return SETTLED
        return {"jobs": open_jobs, "debts": debts, "tasks": sorted(task.get_name() for task in asyncio.all_tasks())}

    async def do_backup(self, path: str) -> Any:
        """A copy of the ledger while it goes on."""
        await self.agent.ledger.backup(Path(path))
        return {}

    async def do_state(self) -> Any:
        """Books, leases and soundness."""
        ledger = self.agent.ledger
        books = await ledger.read(lambda reader: reader.books())
        report = await ledger.verify()
        return {
            "books": {
                book.peer.hex(): {
                    "out": book.out,
                    "in": book.inn,
                    "reserved": book.reserved_in + book.reserved_out,
                    "written_off": book.standing.written_off,
                    "granted": book.granted,
                }
                for book in books
            },
            "leases": [
                {"id": lease.id.hex(), "state": lease.state.value, "price": lease.price, "paid": lease.entry is not None}
                for lease in self.agent.worker.leases
            ],
            "jobs": [show(job) for job in self.agent.requester.jobs],
            "faults": list(report.faults),
        }


def show(job: Job) -> dict[str, Any]:
    """A job for the test."""
    return {
        "id": job.id.hex(), "phase": job.phase.value, "reason": job.reason, "paid": job.paid, "attempts": len(job.attempts),
        "outcomes": [attempt.outcome.value for attempt in job.attempts],
    }  # fmt: skip


def say(what: Any) -> None:
    """One line."""
    print(json.dumps(what), flush=True)


def main(given: dict[str, Any]) -> None:
    """Run one node."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with contextlib.suppress(LedgerError, BrokenPipeError):
        asyncio.run(Node(given).run())
