"""Cancelling a job at its worker: what has begun costs a fee, what is delivered is paid."""

import asyncio
import time
from functools import partial

import structlog

from nexus_edge.clock import now_ms
from nexus_edge.errors import PeerError
from nexus_edge.market import jobs, promises
from nexus_edge.market.attempts import OVERTIME, RETRY_S, Attempts
from nexus_edge.market.jobs import Job, Outcome
from nexus_edge.market.machines import nothing
from nexus_edge.market.settling import Payer
from nexus_edge.transport import PeerConnection
from nexus_edge.types import MicroCredits
from nexus_edge.wire.refusals import Code, Refusal

log = structlog.get_logger("market")


class Cancelling:
    """From `cancelling` to the end."""

    def __init__(self, attempts: Attempts, payer: Payer) -> None:
        self._attempts = attempts
        self._payer = payer

    async def cancel(self, job: Job) -> None:
        """Tell the worker, until it has heard or its time is up, and pay the fee if it had begun."""
        attempt = job.attempts[-1] if job.attempts else None
        if attempt is None or attempt.outcome is not Outcome.OPEN or job.entry is not None:
            await self._attempts.jobs.record(job.id, jobs.Cancelled(now_ms()), nothing)
            return
        owed = 0
        try:
            connection = self._attempts.peers.connection(attempt.worker)
            if connection is None:
                raise PeerError("its address is not known")
            has_begun = await self._has_begun(job, connection)
            status = await connection.cancel(attempt.lease)
            if status.state in ("unpaid", "settled"):
                await self._attempts.jobs.record(job.id, jobs.CancelTooLate(now_ms()), nothing)
                return
            owed = status.owed if has_begun else 0
        except Refusal as refusal:
            if refusal.code in (Code.RATE, Code.BUSY, Code.TIMEOUT, Code.INTERNAL, Code.DRAINING):
                await self._wait_to_cancel(job, refusal)
                return
            log.info("the worker has nothing to cancel", reason=refusal.text)
        except PeerError as failed:
            if await self._wait_to_cancel(job, failed):
                return
        if owed == attempt.start_fee > 0:
            await self._attempts.jobs.record_made(job.id, "paying", partial(promises.pay_fee, attempt, MicroCredits(owed)))
            self._payer.wake(attempt.worker)
            await self._attempts.jobs.record(job.id, jobs.Cancelled(now_ms()), nothing)
        else:
            await self._attempts.jobs.record(job.id, jobs.Cancelled(now_ms()), partial(promises.release, attempt.lease))

    async def _has_begun(self, job: Job, connection: PeerConnection) -> bool:
        """Whether the worker says that it works, right before it hears of the cancel: the fee is owed by that, not by what it says afterwards.

        One that has heard of it before a restart of ours was asked then.
        """
        live = self._attempts.live[job.id]
        status = await connection.poll(job.attempt.lease, 0, 0)
        if live.status is None or status.state != "cancelled":
            live.status = status
        return live.status.state in ("executing", "proving", "cancelled")

    async def _wait_to_cancel(self, job: Job, why: Exception) -> bool:
        """Whether it makes sense to tell the worker again: until its deadline it may deliver, and then it is owed the price."""
        live = self._attempts.live[job.id]
        live.accepted = live.accepted or time.monotonic()
        if time.monotonic() > live.accepted + OVERTIME * job.deadline_ms / 1000:
            log.info("the worker never heard that the job is cancelled", reason=str(why))
            return False
        await asyncio.sleep(RETRY_S)
        return True
