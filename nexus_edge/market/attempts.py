"""What every step of a requester's job works with: its events, what is known besides them, and how an attempt ends."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import structlog

from nexus_edge.clock import now_ms
from nexus_edge.errors import LedgerError, PeerError
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.ledger import BlobStore, Ledger, Transaction
from nexus_edge.market import jobs, promises
from nexus_edge.market.buying import Peers
from nexus_edge.market.jobs import Job, Outcome
from nexus_edge.market.machines import Machines, Rules, nothing
from nexus_edge.market.ordering import Live
from nexus_edge.market.workers import Workers
from nexus_edge.types import Digest, JobId
from nexus_edge.wire.limits import INPUT, KIB
from nexus_edge.wire.messages import InputUpload, decode_message
from nexus_edge.wire.refusals import Refusal
from nexus_edge.wire.signing import Signed

RETRY_S: Final = 1.0
"""Between two rounds of quotes while nobody fits, and between tries of what waits for a peer."""
PATIENCE_S: Final = 5.0
"""The longest wait that a worker's `retry_ms` can ask for between two polls, or two copies of a lease."""
OVERTIME: Final = 1.1
"""A worker that is a tenth over its deadline is lost too."""

RULES: Final = Rules[Job]("job", jobs.EVENTS, jobs.begin, jobs.apply, lambda job: job.phase.is_final)

log = structlog.get_logger("market")


class Attempts:
    """Jobs with their attempts."""

    def __init__(self, key: NodeKey, ledger: Ledger, blobs: BlobStore, peers: Peers) -> None:
        self.key = key
        self.ledger = ledger
        self.blobs = blobs
        self.peers = peers
        self.jobs = Machines(ledger, RULES)
        self.live: dict[JobId, Live] = {}
        self.workers = Workers(ledger)
        self.forgotten: set[bytes] = set()
        """Jobs whose commitment to the input may have been opened by workers that this ledger, restored from a backup, does not know of."""
        self._told: set[asyncio.Task[None]] = set()

    async def declined(self, job: Job, reason: str) -> None:
        """The worker does not want the lease: its price is free again."""
        await self.jobs.record(job.id, jobs.Declined(now_ms(), reason[:200]), partial(promises.release, job.attempt.lease))

    async def give_up(self, job: Job, outcome: Outcome, reason: str, work: Callable[[Transaction], None] = nothing) -> None:
        """End the attempt: its price is free again, and the next worker may be tried."""
        attempt = job.attempt

        def release(transaction: Transaction) -> None:
            transaction.release(attempt.lease)
            self.workers.note(attempt.worker, outcome, 0, 0, transaction)
            work(transaction)

        log.info("attempt ended", peer=short_id(attempt.worker), outcome=outcome.value, reason=reason)
        event = jobs.AttemptFailed(now_ms(), outcome.value, reason[:200])
        await self.jobs.record(job.id, event, release)
        self.workers.learn(attempt.worker, outcome, 0, 0)
        self.live[job.id].accepted, self.live[job.id].given = 0.0, False
        self.live[job.id].status = None
        connection = self.peers.connection(attempt.worker)
        if connection is not None and outcome is Outcome.LOST:
            self.tell(connection.cancel(attempt.lease))

    def tell(self, message: Awaitable[object]) -> None:
        """Say something to a peer that may not hear it."""

        async def try_to() -> None:
            try:
                await message
            except (PeerError, Refusal) as failed:
                log.debug("not heard", reason=str(failed))

        task = asyncio.create_task(try_to(), name="tell a lost worker")
        self._told.add(task)
        task.add_done_callback(self._told.discard)

    async def input(self, job: Job) -> InputUpload:
        """What a worker gets. Raises `LedgerError` if it is lost."""
        live = self.live.get(job.id)
        if live is not None and live.upload is not None:
            upload, live.upload = live.upload, None
            return upload
        stored = await self.blobs.get(job.input)
        if stored is None:
            raise LedgerError("the input is lost", "its file is gone or damaged", "send the job again")
        return decode_message(InputUpload, stored, INPUT + 64 * KIB)

    async def kept(self, digest: Digest) -> Signed[Any]:
        """A signed object that the ledger has."""
        return await self.ledger.object(digest)
