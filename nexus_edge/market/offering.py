"""Finding a worker for a job, and offering it the lease until it answers."""

import asyncio
import time
from functools import partial
from typing import Final

import structlog

from nexus_edge.clock import now_ms
from nexus_edge.errors import PeerError
from nexus_edge.identity import short_id
from nexus_edge.ledger import SpendLimit, Unsynchronised
from nexus_edge.market import jobs, promises
from nexus_edge.market.attempts import PATIENCE_S, RETRY_S, Attempts
from nexus_edge.market.buying import Buyer, Choice
from nexus_edge.market.jobs import ATTEMPTS, OFFERS, Job, Outcome
from nexus_edge.market.machines import nothing
from nexus_edge.market.ordering import Checks
from nexus_edge.market.placement import summary
from nexus_edge.transport import PeerConnection
from nexus_edge.types import Digest
from nexus_edge.wire.messages import InputUpload, encode_message
from nexus_edge.wire.objects import Lease, Quote
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed

SENDS: Final = 3
SENDS_S: Final = 15.0
"""A lease is sent three times in 15 seconds before the worker is asked whether it has it."""
SEND_S: Final = 5.0
"""How long one copy, or that question, is waited for: an answer takes a flush or two, and the next copy is due."""
ROUNDS: Final = 2
"""Who has the lease is sent it as often once more: its answer got lost. Who says so and never accepts is lost then, not at the deadline."""
UNHEARD: Final = (Code.RATE, Code.TIMEOUT, Code.INTERNAL)
"""Refusals that say nothing about the lease: an earlier copy of it may have been accepted."""

log = structlog.get_logger("market")


class Offering:
    """From `new` to `accepted`."""

    def __init__(self, attempts: Attempts, buyer: Buyer, checks: Checks) -> None:
        self._attempts = attempts
        self._buyer = buyer
        self._checks = checks

    async def offer(self, job: Job) -> None:
        """Find a worker, reserve the price, sign the lease."""
        live = self._attempts.live[job.id]
        left = job.deadline_ms - int(1000 * (time.monotonic() - live.began))
        why = ""
        if job.accepted >= ATTEMPTS:
            why = f"{job.accepted} workers tried"
        elif len(job.attempts) >= OFFERS or left <= 0:
            why = f"no worker in time: {summary(live.rejected)}"
        if why:
            last = next((attempt.reason for attempt in reversed(job.attempts) if attempt.reason), "")
            await self._attempts.jobs.record(job.id, jobs.Failed(now_ms(), f"{why}; {last}" if last else why), nothing)
            return
        if job.is_handed_out or job.id in self._attempts.forgotten:
            await self._commit_afresh(job)
            return
        choosing, live.choosing = live.choosing, None
        choice = await (choosing or self.choose(job, left))
        live.rejected = choice.rejected
        if choice.best is None:
            live.upload = None  # who waits for long needs no memory
            await asyncio.sleep(RETRY_S)
            return
        live.quote = choice.best.quote
        lease = promises.lease_for(self._attempts.key, job, choice.best)
        terms = choice.best.quote.object
        lines = tuple(f"{short_id(one.worker)} {one.why.value}: {one.text}"[:200] for one in choice.rejected[:16])
        event = jobs.Offered(now_ms(), len(job.attempts), choice.best.worker, lease.id, terms.price, terms.start_fee, lines)
        try:
            await self._attempts.jobs.record(job.id, event, partial(promises.reserve, lease, choice.best.quote))
        except SpendLimit as limit:
            await self._attempts.jobs.record(job.id, jobs.Failed(now_ms(), str(limit)), nothing)
        except Unsynchronised as restored:
            log.info("waiting for the peer's book", reason=str(restored))
            await asyncio.sleep(RETRY_S)

    async def _commit_afresh(self, job: Job) -> None:
        """Before one more worker gets the input: each that had it may have proved, also those that are lost."""
        former = await self._attempts.input(job)
        inc, upload = await self._checks.commit(job.model, former.data)
        kept = await self._attempts.blobs.put(encode_message(upload))
        await self._attempts.jobs.record(job.id, jobs.Recommitted(now_ms(), inc, kept), nothing)
        self._attempts.forgotten.discard(job.id)
        log.info("the input is committed to afresh", workers=job.handed)

    async def choose(self, job: Job, left_ms: int) -> Choice:
        """Who may have it now."""
        books, trusted = await self._attempts.ledger.read(lambda reader: (reader.books(), reader.trusted()))
        owed = {book.peer: book.owed for book in books}
        workers = self._attempts.workers
        return await self._buyer.choose(job, lambda one: workers.known(one, owed.get(one, 0), job, trusted=one in trusted), left_ms)

    async def send(self, job: Job) -> None:
        """Send the lease; the same bytes until it is answered, or the worker says that it does not have it."""
        attempt = job.attempt
        connection = self._attempts.peers.connection(attempt.worker)
        lease = (await self._attempts.kept(attempt.lease)).of(Lease)
        quote = (await self._attempts.kept(lease.object.quote)).of(Quote)
        # A small input goes along with the first offer: the worker begins a round trip, and a commit of ours, sooner. Not with later ones:
        # whoever declines has it too, and it may be opened only so many times in all.
        goes_along = attempt.number == 0 and job.sends_along
        upload = await self._attempts.input(job) if goes_along else None
        if connection is None:
            await self._attempts.give_up(job, Outcome.LOST, "its address is not known any more")
            return
        for number in range(ROUNDS):
            if await self._sends(job, connection, lease, quote, upload, unheard=number > 0):
                return
            is_held = await self._holds(connection, lease.id)
            if not is_held:
                why = "it did not answer the lease" if is_held is None else "it did not answer the lease, and does not have it"
                await self._attempts.give_up(job, Outcome.LOST, why)
                return
            log.info("the worker has the lease, and its answer was lost", peer=short_id(attempt.worker))
        await self._attempts.give_up(job, Outcome.LOST, "it has the lease, and does not accept it")

    async def _sends(
        self, job: Job, connection: PeerConnection, lease: Signed[Lease], quote: Signed[Quote], upload: InputUpload | None, *, unheard: bool
    ) -> bool:  # fmt: skip
        """Send the lease up to three times; whether the worker took it or declined. `unheard`: it may have an earlier copy.

        While nobody else answers either it is our own line, and no worker's fault: it is sent until the deadline.
        """
        worker = job.attempt.worker
        overdue = self._attempts.live[job.id].began + job.deadline_ms / 1000
        send = 0
        while send < SENDS:
            send += 1
            due = time.monotonic() + SENDS_S / SENDS
            try:
                async with asyncio.timeout(SEND_S):
                    accept = await connection.lease(lease, quote, upload)
            except Refusal as refusal:
                # Who has no room for one more copy may have the lease; asked again he answers as before.
                if refusal.code in UNHEARD or (unheard and refusal.code is Code.BUSY and send < SENDS):
                    unheard = True
                    log.info("the lease is not heard", peer=short_id(worker), reason=refusal.text)
                    await asyncio.sleep(min(PATIENCE_S, (refusal.retry_ms or 1000) / 1000))
                    continue
                self._buyer.rest(worker, refusal)
                await self._attempts.declined(job, f"{refusal.code.value}: {refusal.text}")
                if unheard:  # an earlier copy may be accepted all the same, and would hold a place there until its input is overdue
                    self._attempts.tell(connection.cancel(lease.id))
                return True
            except (PeerError, TimeoutError) as failed:
                unheard = True
                log.info("the lease is not answered", peer=short_id(worker), reason=str(failed) or f"nothing in {SEND_S} s")
                if not self._attempts.peers.others_answer(worker) and time.monotonic() < overdue:
                    send -= 1
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                continue
            if accept.object.lease != lease.id or accept.object.to != self._attempts.key.id:
                await self._attempts.declined(job, "its answer accepts another lease")
                return True
            await self._attempts.jobs.record(job.id, jobs.Accepted(now_ms()), partial(promises.keep, accept))
            live = self._attempts.live[job.id]
            live.accepted, live.given = time.monotonic(), upload is not None
            return True
        return False

    @staticmethod
    async def _holds(connection: PeerConnection, lease: Digest) -> bool | None:
        """Whether the worker says that it has the lease; None if it says nothing."""
        try:
            async with asyncio.timeout(SEND_S):
                await connection.poll(lease, 0, 0)
        except Refusal as refusal:
            return False if refusal.code is Code.NOT_FOUND else None
        except (PeerError, TimeoutError):
            return None
        return True
