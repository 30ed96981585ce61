"""The requester's side of jobs: drives each through its states, and writes every step before the next byte is sent."""

import asyncio
import secrets
from typing import Final

import structlog

from nexus_edge.clock import now_ms
from nexus_edge.errors import LedgerError, NexusEdgeError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import BlobStore, Ledger
from nexus_edge.market import jobs
from nexus_edge.market.attempts import RULES, Attempts
from nexus_edge.market.buying import Buyer, Choice, Peers
from nexus_edge.market.cancelling import Cancelling
from nexus_edge.market.checking import Answers
from nexus_edge.market.jobs import Job, Phase
from nexus_edge.market.machines import nothing
from nexus_edge.market.offering import Offering
from nexus_edge.market.ordering import Checks, Live, Order
from nexus_edge.market.settling import Payer, Till
from nexus_edge.market.watching import Watching
from nexus_edge.types import Digest, JobId
from nexus_edge.wire.limits import INPUT_WITH_LEASE, RESULT_KEPT_MS
from nexus_edge.wire.messages import InputUpload, encode_message
from nexus_edge.wire.objects import Mode

STUCK_S: Final = 5.0
"""Between tries of a step that this machine cannot do now, because its disk is full or a model is missing."""
NOT_YET: Final = Digest(bytes(32))
"""In the draft of a job, whose quotes are asked for while its input is being committed and written."""

log = structlog.get_logger("market")


class Requester:
    """Our jobs at others."""

    def __init__(self, key: NodeKey, ledger: Ledger, blobs: BlobStore, checks: Checks, peers: Peers, buyer: Buyer, till: Till) -> None:
        attempts = Attempts(key, ledger, blobs, peers)
        self._attempts = attempts
        self.blobs = blobs
        self.jobs = attempts.jobs
        self.live = attempts.live
        self.workers = attempts.workers
        self.payer = Payer(ledger, self.jobs, peers, till)
        self._checks = checks
        self._offering = Offering(attempts, buyer, checks)
        self._answers = Answers(attempts, checks)
        self._watching = Watching(attempts, self._answers)
        self._cancelling = Cancelling(attempts, self.payer)

    async def load(self) -> None:
        """Take up every job where it was."""
        await self.jobs.load()
        committed = (jobs.Created.kind, jobs.Recommitted.kind)
        self._attempts.forgotten |= await self._attempts.ledger.read(lambda reader: reader.restored_since(RULES.stream, committed))
        await self.workers.load(lambda: list(self.jobs))
        for job in sorted(self.jobs, key=lambda one: one.at):
            if not job.phase.is_final:
                self._start(job.id)
        await self.payer.load()

    async def close(self) -> None:
        """Stop driving; the next start goes on."""
        tasks = [task for live in self.live.values() for task in (live.task, live.choosing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.payer.close()

    async def submit(self, order: Order) -> Job:
        """A new job. Raises `BadInput` and `LedgerError`."""
        job = JobId(secrets.token_bytes(16))
        draft = jobs.begin(job, _created(order, NOT_YET, NOT_YET))
        choosing = asyncio.create_task(self._offering.choose(draft, order.deadline_ms), name=f"choose {job.hex()[:8]}")
        try:
            inc, upload = await self._checks.commit(order.model, order.data)
            kept = await self.blobs.put(encode_message(upload))
        except BaseException:
            choosing.cancel()
            raise
        try:
            # Once it is written it is driven, whatever becomes of the caller: nobody else would before the next start.
            await self.jobs.begin(job, _created(order, inc, kept), nothing, lambda: self._start(job, choosing, upload))
        except LedgerError:
            choosing.cancel()
            raise
        return self.jobs[job]

    async def cancel(self, job: JobId) -> Job:
        """The user does not want it any more. What has been delivered is paid all the same."""
        # Gone through with, whatever becomes of the caller: a job that is stopped and not taken up again would keep what it reserved.
        return await asyncio.shield(asyncio.create_task(self._stop(job), name=f"cancel {job.hex()[:8]}"))

    async def _stop(self, job: JobId) -> Job:
        async with self.jobs.lock(job):
            if self.jobs[job].phase in (Phase.NEW, Phase.OFFERED, Phase.ACCEPTED):
                await self.jobs.record(job, jobs.CancelWanted(now_ms()), nothing)
                live = self.live[job]
                if live.task is not None:
                    live.task.cancel()
                    await asyncio.gather(live.task, return_exceptions=True)
                self._start(job)
        return self.jobs[job]

    async def forget(self) -> None:
        """Leave to the ledger what has ended so long ago that nothing of it is kept but proofs."""
        await self.jobs.forget([job.id for job in self.jobs if (self.jobs.over_ms(job.id) or 0) >= RESULT_KEPT_MS])

    async def wait(self, job: JobId, timeout_s: float) -> Job:
        """The job once it has ended, or as it stands when the time is up."""
        await self.jobs.changed(lambda: self.jobs[job].phase.is_final, timeout_s)
        return self.jobs[job]

    # The states

    def _start(self, job: JobId, choosing: asyncio.Task[Choice] | None = None, upload: InputUpload | None = None) -> None:
        is_small = upload is not None and len(upload.data) <= INPUT_WITH_LEASE
        live = self.live.setdefault(job, Live(choosing, upload if is_small else None))
        live.task = asyncio.create_task(self._drive(job), name=f"job {job.hex()[:8]}")

    async def _drive(self, job: JobId) -> None:
        """From where it stands to its end. A ledger that cannot write now is tried again: nothing was sent."""
        while not (state := self.jobs[job]).phase.is_final:
            with structlog.contextvars.bound_contextvars(**_ids(state)):
                try:
                    await self._step(state)
                except NexusEdgeError as failed:
                    log.error("the job cannot go on", reason=str(failed))
                    await asyncio.sleep(STUCK_S)
                except Exception:  # a fault of this program: what the job has reserved must not wait for the next start
                    log.exception("the job cannot go on")
                    await asyncio.sleep(STUCK_S)
        self.live.pop(job, None)  # what is known of a job that has ended is in its state

    async def _step(self, job: Job) -> None:
        match job.phase:
            case Phase.NEW:
                await self._offering.offer(job)
            case Phase.OFFERED:
                await self._offering.send(job)
            case Phase.ACCEPTED:
                await self._watching.watch(job)
            case Phase.DELIVERED:
                await self._answers.verify(job)
            case Phase.VERIFIED:
                await self._answers.sign(job)
            case Phase.PAYING:
                self.payer.wake(job.attempt.worker)
                await self.jobs.changed(lambda: self.jobs[job.id].phase is not Phase.PAYING, 60)
            case Phase.CANCELLING:
                await self._cancelling.cancel(job)


def _ids(job: Job) -> dict[str, bytes]:
    """For every line of the log: the job's, and those of the attempt that is under way."""
    if job.phase is Phase.NEW or not job.attempts:
        return {"job": job.id}
    return {"job": job.id, "lease": job.attempt.lease, "peer": job.attempt.worker}


def _created(order: Order, inc: Digest, kept: Digest) -> jobs.Created:
    return jobs.Created(
        now_ms(), order.model, order.sem, order.params, Mode.PROVED.value, order.outm.value, inc, kept, len(order.data), order.max_price,
        order.deadline_ms, order.worker,
    )  # fmt: skip
