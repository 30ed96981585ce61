"""The requester's side of jobs: drives each through its states, and writes every step before the next byte is sent."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import structlog

from nexus_edge.clock import now_ms
from nexus_edge.compute import StoreError
from nexus_edge.errors import LedgerError, NexusEdgeError, OpeningError, PeerError, ProofRejected
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.ledger import BlobStore, Ledger, SpendLimit, Transaction, Unsynchronised
from nexus_edge.market import jobs, promises
from nexus_edge.market.answers import check_result, download
from nexus_edge.market.buying import Buyer, Choice, Peers
from nexus_edge.market.jobs import ATTEMPTS, OFFERS, Job, Outcome, Phase
from nexus_edge.market.machines import Events, Machines, Rules, nothing
from nexus_edge.market.ordering import Checks, Live, Order, Verdict
from nexus_edge.market.placement import summary
from nexus_edge.market.settling import Payer, Till
from nexus_edge.market.workers import Workers
from nexus_edge.transport import PeerConnection
from nexus_edge.types import Digest, JobId, MicroCredits, NodeId, UnixMs
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import INPUT, INPUT_WITH_LEASE, KIB, LONG_POLL_MS, OUTPUT, PROOF, RESULT_KEPT_MS, UPLOAD_BYTES_PER_S
from nexus_edge.wire.messages import InputUpload, ResultAnswer, decode_message, encode_message
from nexus_edge.wire.objects import Evidence, Lease, Mode, ProofNotice, Quote, Result
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, read_signed, sign

RULES: Final = Rules[Job]("job", jobs.EVENTS, jobs.begin, jobs.apply)

RETRY_S: Final = 1.0
"""Between two rounds of quotes while nobody fits."""
SENDS: Final = 3
SENDS_S: Final = 15.0
"""A lease is sent three times in 15 seconds before the worker is asked whether it has it."""
UNHEARD: Final = (Code.RATE, Code.TIMEOUT, Code.INTERNAL)
"""Refusals that say nothing about the lease: an earlier copy of it may have been accepted."""
SUSPECT_S: Final = 15.0
LOST_S: Final = 30.0
"""Without a beat, a worker is suspect, then lost: beats come every 5 seconds while work progresses."""
PATIENCE_S: Final = 5.0
"""The longest wait that a worker's `retry_ms` can ask for between two polls."""
QUEUE_PATIENCE: Final = 4
"""A job that waits so many times longer than its quote said, and then as long as a silent worker may be silent, waits for nothing."""
STUCK_S: Final = 5.0
"""Between tries of a step that this machine cannot do now, because its disk is full or a model is missing."""
POLLS: Final = 20
POLL_PAUSE_S: Final = 0.1
"""After so many polls there is a pause before each: an honest worker answers when something has happened, another could keep us busy."""
FETCH_S: Final = 60.0
"""What fetching a result may take beyond the time that the slowest line needs: no answer is waited for without end."""
NOT_YET: Final = Digest(bytes(32))
"""In the draft of a job, whose quotes are asked for while its input is being committed and written."""
OVERTIME: Final = 1.1
"""A worker that is a tenth over its deadline is lost too."""

log = structlog.get_logger("market")


class Requester:
    """Our jobs at others."""

    def __init__(self, key: NodeKey, ledger: Ledger, blobs: BlobStore, checks: Checks, peers: Peers, buyer: Buyer, till: Till) -> None:
        self.key = key
        self.ledger = ledger
        self.blobs = blobs
        self.jobs = Machines(ledger, RULES)
        self.payer = Payer(ledger, self.jobs, peers, till)
        self.live: dict[JobId, Live] = {}
        self.workers = Workers()
        self._checks = checks
        self._peers = peers
        self._buyer = buyer
        self._told: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Take up every job where it was."""
        await self.jobs.load()
        for job in sorted(self.jobs, key=lambda one: one.at):
            for attempt in job.attempts:
                self.workers.learn(attempt, job.ended or job.at, 0, 0)
            if not job.phase.is_final:
                self._start(job.id)
        await self.payer.load()

    async def close(self) -> None:
        """Stop driving; the next start goes on."""
        tasks = [live.task for live in self.live.values() if live.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.payer.close()

    async def submit(self, order: Order) -> Job:
        """A new job. Raises `BadInput` and `LedgerError`."""
        job = JobId(secrets.token_bytes(16))
        draft = jobs.begin(job, _created(order, NOT_YET, NOT_YET))
        choosing = asyncio.create_task(self._choose(draft, order.deadline_ms), name=f"choose {job.hex()[:8]}")
        try:
            inc, upload = await self._checks.commit(order.model, order.data)
            kept = await self.blobs.put(encode_message(upload))
        except BaseException:
            choosing.cancel()
            raise
        try:
            # Once it is written it is driven, whatever becomes of the caller: nobody else would before the next start.
            await self.jobs.begin(job, _created(order, inc, kept), nothing, lambda: self._start(job, choosing))
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

    def forget(self, now: UnixMs) -> None:
        """Leave to the ledger what has ended so long ago that nothing of it is kept but proofs."""
        for job in self.jobs:
            if job.ended is not None and job.ended + RESULT_KEPT_MS <= now:
                self.jobs.forget(job.id)

    async def wait(self, job: JobId, timeout_s: float) -> Job:
        """The job once it has ended, or as it stands when the time is up."""
        await self.jobs.changed(lambda: self.jobs[job].phase.is_final, timeout_s)
        return self.jobs[job]

    # The states

    def _start(self, job: JobId, choosing: asyncio.Task[Choice] | None = None) -> None:
        live = self.live.setdefault(job, Live(choosing))
        live.task = asyncio.create_task(self._drive(job), name=f"job {job.hex()[:8]}")

    async def _drive(self, job: JobId) -> None:
        """From where it stands to its end. A ledger that cannot write now is tried again: nothing was sent."""
        with structlog.contextvars.bound_contextvars(job=job.hex()[:8]):
            while not self.jobs[job].phase.is_final:
                try:
                    await self._step(self.jobs[job])
                except NexusEdgeError as failed:
                    log.error("the job cannot go on", reason=str(failed))
                    await asyncio.sleep(STUCK_S)
        self.live.pop(job, None)  # what is known of a job that has ended is in its state

    async def _step(self, job: Job) -> None:
        match job.phase:
            case Phase.NEW:
                await self._offer(job)
            case Phase.OFFERED:
                await self._send(job)
            case Phase.ACCEPTED:
                await self._work(job)
            case Phase.DELIVERED:
                await self._verify(job)
            case Phase.VERIFIED:
                await self._sign(job)
            case Phase.PAYING:
                self.payer.wake(job.attempt.worker)
                await self.jobs.changed(lambda: self.jobs[job.id].phase is not Phase.PAYING, 60)
            case Phase.CANCELLING:
                await self._cancel(job)

    async def _offer(self, job: Job) -> None:
        """Find a worker, reserve the price, sign the lease."""
        live = self.live[job.id]
        left = job.deadline_ms - int(1000 * (time.monotonic() - live.began))
        if job.accepted >= ATTEMPTS or len(job.attempts) >= OFFERS or left <= 0:
            why = f"{job.accepted} workers tried" if job.accepted >= ATTEMPTS else f"no worker in time: {summary(live.rejected)}"
            last = next((attempt.reason for attempt in reversed(job.attempts) if attempt.reason), "")
            await self.jobs.record(job.id, jobs.Failed(now_ms(), f"{why}; {last}" if last else why), nothing)
            return
        choosing, live.choosing = live.choosing, None
        choice = await (choosing or self._choose(job, left))
        live.rejected = choice.rejected
        if choice.best is None:
            await asyncio.sleep(RETRY_S)
            return
        live.quote = choice.best.quote
        lease = promises.lease_for(self.key, job, choice.best)
        terms = choice.best.quote.object
        lines = tuple(f"{short_id(one.worker)} {one.why.value}: {one.text}"[:200] for one in choice.rejected[:16])
        event = jobs.Offered(now_ms(), len(job.attempts), choice.best.worker, lease.id, terms.price, terms.start_fee, lines)
        try:
            await self.jobs.record(job.id, event, partial(promises.reserve, lease, choice.best.quote))
        except SpendLimit as limit:
            await self.jobs.record(job.id, jobs.Failed(now_ms(), str(limit)), nothing)
        except Unsynchronised as restored:
            log.info("waiting for the peer's book", reason=str(restored))
            await asyncio.sleep(RETRY_S)

    async def _choose(self, job: Job, left_ms: int) -> Choice:
        books, trusted = await self.ledger.read(lambda reader: (reader.books(), reader.trusted()))
        owed = {book.peer: book.owed for book in books}
        return await self._buyer.choose(
            job, lambda worker: self.workers.known(worker, owed.get(worker, 0), job, trusted=worker in trusted), left_ms
        )

    async def _send(self, job: Job) -> None:
        """Send the lease; the same bytes until it is answered."""
        attempt = job.attempt
        connection = self._peers.connection(attempt.worker)
        lease = (await self._kept(attempt.lease)).of(Lease)
        quote = (await self._kept(lease.object.quote)).of(Quote)
        # A small input goes along with the first offer: the worker begins a round trip, and a commit of ours, sooner. Not with later ones:
        # whoever declines has it too, and it may be opened only so many times in all.
        goes_along = attempt.number == 0 and job.input_bytes <= INPUT_WITH_LEASE
        upload = await self._input(job) if goes_along else None
        for _ in range(SENDS if connection is not None else 0):
            assert connection is not None
            try:
                accept = await connection.lease(lease, quote, upload)
            except Refusal as refusal:
                if refusal.code in UNHEARD:
                    log.info("the lease is not heard", peer=short_id(attempt.worker), reason=refusal.text)
                    await asyncio.sleep(min(PATIENCE_S, (refusal.retry_ms or 1000) / 1000))
                    continue
                self._buyer.rest(attempt.worker, refusal)
                await self._declined(job, f"{refusal.code.value}: {refusal.text}")
                return
            except PeerError as failed:
                log.info("the lease is not answered", peer=short_id(attempt.worker), reason=str(failed))
                await asyncio.sleep(SENDS_S / SENDS)
                continue
            if accept.object.lease != lease.id or accept.object.to != self.key.id:
                await self._declined(job, "its answer accepts another lease")
                return
            await self.jobs.record(job.id, jobs.Accepted(now_ms()), partial(promises.keep, accept))
            live = self.live[job.id]
            live.accepted, live.given = time.monotonic(), upload is not None
            return
        await self._give_up(job, Outcome.LOST, "it did not answer the lease")

    async def _work(self, job: Job) -> None:
        """Give the input, watch the worker, fetch what it made."""
        connection = self._peers.connection(job.attempt.worker)
        if connection is None:
            await self._give_up(job, Outcome.LOST, "its address is not known any more")
            return
        live = self.live[job.id]
        live.accepted = live.accepted or time.monotonic()
        lease = job.attempt.lease
        order = (await self._kept(lease)).of(Lease).object
        deadline = live.accepted + OVERTIME * order.deadline_ms / 1000
        quote = (await self._kept(order.quote)).of(Quote).object
        begins = live.accepted + LOST_S + QUEUE_PATIENCE * quote.queue_ms / 1000
        heard = beaten = time.monotonic()
        beat, after, polls = -1, 0, 0
        while True:
            polls += 1
            if polls > POLLS:
                await asyncio.sleep(POLL_PAUSE_S)
            now = time.monotonic()
            live.suspect = now - min(heard, beaten) > SUSPECT_S
            silent = now - min(heard, beaten) > LOST_S and self._someone_answers(job.attempt.worker)
            if silent or now > deadline:
                await self._give_up(job, Outcome.LOST, "it is silent" if silent else "it is over the time that it promised")
                return
            try:
                if not live.given:
                    await connection.put_input(lease, await self._input(job))
                    live.given = True
                status = await connection.poll(lease, after, min(LONG_POLL_MS, 5000))
            except Refusal as refusal:
                if refusal.code in (Code.RATE, Code.BUSY):
                    await asyncio.sleep(min(PATIENCE_S, (refusal.retry_ms or 1000) / 1000))
                    continue
                await self._give_up(job, Outcome.FAILED, f"{refusal.code.value}: {refusal.text}")
                return
            except PeerError as failed:
                log.info("the worker does not answer", peer=short_id(job.attempt.worker), reason=str(failed))
                await asyncio.sleep(1)
                continue
            heard = time.monotonic()
            live.status = status
            after = max([after, *(event.n for event in status.events)])
            # Who waits in a queue has no beat; who works has.
            if status.beat != beat or (status.state not in ("executing", "proving") and heard < begins):
                beat, beaten = status.beat, heard
            await self.jobs.touched()
            if status.state in ("unpaid", "settled"):
                await self._fetch(job, connection, order, status.answer)
                return
            if status.state in ("expired", "cancelled", "failed"):
                await self._give_up(job, Outcome.FAILED, f"{status.state}: {status.reason}")
                return

    async def _fetch(self, job: Job, connection: PeerConnection, order: Lease, came: ResultAnswer | None) -> None:
        """Result, output and proof, as far as they belong together and did not come with the poll."""
        attempt = job.attempt
        try:
            async with asyncio.timeout(FETCH_S + (OUTPUT + PROOF) / UPLOAD_BYTES_PER_S):
                answer = came or await connection.result(attempt.lease)
                result = read_signed(answer.result, Result)
                if answer.proof is None:
                    raise BadObject("there is no proof")
                notice = read_signed(answer.proof, ProofNotice)
                check_result(order, attempt, result, notice, answer.output)
                proof = await download(connection, notice.object, answer.content)
        except (PeerError, Refusal, TimeoutError) as failed:
            log.info("the result cannot be fetched", reason=str(failed))
            await asyncio.sleep(1)
            return
        except BadObject as bad:
            await self._give_up(job, Outcome.INVALID, bad.why)
            return
        # Verified while it is being written; what the verdict is waits for that.
        checking = asyncio.create_task(self._check(job, result.object, notice.object, answer.output, proof, answer.seed), name="verify")
        try:
            output, kept = await asyncio.gather(self.blobs.put(answer.output), self.blobs.put(proof))
            event = jobs.Delivered(now_ms(), result.id, output, notice.id, kept, result.object.run_ms, notice.object.prove_ms, answer.seed)
            verdict = await checking
            if verdict.holds:
                await self._pay(job, verdict, (event,), (result, notice))
            else:
                await self.jobs.record(job.id, event, partial(promises.keep, result, notice))
                self.live[job.id].verdict = verdict
        finally:
            checking.cancel()
            await asyncio.gather(checking, return_exceptions=True)

    async def _check(
        self, job: Job, result: Result, notice: ProofNotice, output: bytes, proof: bytes, seed: bytes | None
    ) -> Verdict:  # fmt: skip
        started = time.monotonic()
        refused = unable = ""
        try:
            await self._checks.verify(job.model, job.params, job.inc, result, notice, output, proof, seed)
        except (ProofRejected, OpeningError) as failed:
            refused = str(failed)
        except StoreError as gone:  # our own model has left or is damaged: that is no fault of the worker
            unable = f"the answer cannot be checked here: {gone}"
        return Verdict(refused, unable, started, int(1000 * (time.monotonic() - started)))

    async def _check_stored(self, job: Job) -> Verdict:
        """After a restart."""
        attempt = job.attempt
        if attempt.result is None or attempt.notice is None or attempt.output is None or attempt.proof is None:
            raise LedgerError("the ledger contradicts itself", "a delivered job has no result")
        output, proof = await self.blobs.get(attempt.output), await self.blobs.get(attempt.proof)
        if output is None or proof is None:
            return Verdict("", "its answer was lost here: a file is gone or damaged", time.monotonic(), 0)
        result, notice = (await self._kept(attempt.result)).of(Result).object, (await self._kept(attempt.notice)).of(ProofNotice).object
        return await self._check(job, result, notice, output, proof, attempt.seed)

    async def _verify(self, job: Job) -> None:
        """By the verdict the answer is refused, or the payment signed: from here its bytes never change."""
        live = self.live[job.id]
        verdict = live.verdict or await self._check_stored(job)
        live.verdict = None
        if verdict.unable:
            await self._give_up(job, Outcome.FAILED, verdict.unable)
            return
        if verdict.refused:
            await self._refuse(job, verdict.refused)
            return
        await self._pay(job, verdict)

    async def _pay(
        self, job: Job, verdict: Verdict, before: tuple[jobs.Delivered, ...] = (), objects: tuple[Signed[Any], ...] = ()
    ) -> None:
        """Sign the payment. The delivery too is written in the same commit, if it is not yet: nothing leaves between the two."""
        live = self.live[job.id]
        for delivered in before:
            job = jobs.apply(delivered, job)
        attempt = job.attempt
        quote = (await self._kept((await self._kept(attempt.lease)).of(Lease).object.quote)).of(Quote).object
        claimed = quote.run_ms + quote.prove_ms
        seen = int(1000 * (verdict.began - live.accepted)) if live.accepted else 0
        event = jobs.Verified(now_ms(), verdict.took_ms, claimed, seen)

        def verified(transaction: Transaction) -> tuple[Events, None]:
            promises.keep(*objects, transaction)
            transaction.verified(attempt.worker, attempt.price)
            return (*before, event), None

        def settle(transaction: Transaction) -> tuple[Events, None]:
            events, _ = verified(transaction)
            paying, _ = promises.pay(attempt, transaction)
            return (*events, *paying), None

        try:
            await self.jobs.record_made(job.id, "paying", settle)
        except Unsynchronised:
            await self.jobs.record_made(job.id, "verified", verified)
        self.workers.learn(self.jobs[job.id].attempt, event.at, claimed, seen)
        log.info("verified", peer=short_id(attempt.worker), verify_ms=event.verify_ms)

    async def _refuse(self, job: Job, why: str) -> None:
        """A false proof: no debt, no second chance for this worker, and the evidence is kept."""
        attempt = job.attempt
        objects = [await self._kept(one) for one in (attempt.lease, attempt.result, attempt.notice) if one is not None]
        parts = tuple(one.to_bytes() for one in objects)
        blobs = () if attempt.proof is None else (bytes(attempt.proof),)
        evidence = sign(self.key, Evidence(iss=self.key.id, at=now_ms(), about=attempt.worker, cls=1, parts=parts, blobs=blobs))
        log.warning("a false proof is refused", peer=short_id(attempt.worker), reason=why, evidence=evidence.id.hex()[:8])
        await self._give_up(job, Outcome.INVALID, why, partial(promises.keep, evidence))

    async def _sign(self, job: Job) -> None:
        """The payment of a job that was verified while the worker's book was unknown."""
        try:
            await self.jobs.record_made(job.id, "paying", partial(promises.pay, job.attempt))
        except Unsynchronised:
            await asyncio.sleep(RETRY_S)

    async def _cancel(self, job: Job) -> None:
        """Tell the worker, until it has heard or its time is up, and pay the fee if it had begun."""
        attempt = job.attempts[-1] if job.attempts else None
        if attempt is None or attempt.outcome is not Outcome.OPEN or job.entry is not None:
            await self.jobs.record(job.id, jobs.Cancelled(now_ms()), nothing)
            return
        owed = 0
        try:
            connection = self._peers.connection(attempt.worker)
            if connection is None:
                raise PeerError("its address is not known")
            status = await connection.cancel(attempt.lease)
            if status.state in ("unpaid", "settled") and attempt.accepted:
                await self.jobs.record(job.id, jobs.CancelTooLate(now_ms()), nothing)
                return
            owed = status.owed
        except Refusal as refusal:
            if refusal.code in (Code.RATE, Code.BUSY, Code.TIMEOUT, Code.INTERNAL, Code.DRAINING):
                await self._wait_to_cancel(job, refusal)
                return
            log.info("the worker has nothing to cancel", reason=refusal.text)
        except PeerError as failed:
            if await self._wait_to_cancel(job, failed):
                return
        if owed == attempt.start_fee > 0:
            await self.jobs.record_made(job.id, "paying", partial(promises.pay_fee, attempt, MicroCredits(owed)))
            self.payer.wake(attempt.worker)
            await self.jobs.record(job.id, jobs.Cancelled(now_ms()), nothing)
        else:
            await self.jobs.record(job.id, jobs.Cancelled(now_ms()), partial(promises.release, attempt.lease))

    async def _wait_to_cancel(self, job: Job, why: Exception) -> bool:
        """Whether it makes sense to tell the worker again: until its deadline it may deliver, and then it is owed the price."""
        live = self.live[job.id]
        live.accepted = live.accepted or time.monotonic()
        if time.monotonic() > live.accepted + OVERTIME * job.deadline_ms / 1000:
            log.info("the worker never heard that the job is cancelled", reason=str(why))
            return False
        await asyncio.sleep(RETRY_S)
        return True

    # Parts

    async def _declined(self, job: Job, reason: str) -> None:
        await self.jobs.record(job.id, jobs.Declined(now_ms(), reason[:200]), partial(promises.release, job.attempt.lease))

    async def _give_up(self, job: Job, outcome: Outcome, reason: str, work: Callable[[Transaction], None] = nothing) -> None:
        """End the attempt: its price is free again, and the next worker may be tried."""
        attempt = job.attempt

        def release(transaction: Transaction) -> None:
            transaction.release(attempt.lease)
            work(transaction)

        log.info("attempt ended", peer=short_id(attempt.worker), outcome=outcome.value, reason=reason)
        event = jobs.AttemptFailed(now_ms(), outcome.value, reason[:200])
        await self.jobs.record(job.id, event, release)
        self.workers.learn(self.jobs[job.id].attempts[len(job.attempts) - 1], event.at, 0, 0)
        self.live[job.id].accepted, self.live[job.id].given = 0.0, False
        self.live[job.id].status = None
        connection = self._peers.connection(attempt.worker)
        if connection is not None and outcome is Outcome.LOST:
            self._tell(connection.cancel(attempt.lease))

    def _tell(self, message: Awaitable[object]) -> None:
        """Say something to a peer that may not hear it."""

        async def try_to() -> None:
            try:
                await message
            except (PeerError, Refusal) as failed:
                log.debug("not heard", reason=str(failed))

        task = asyncio.create_task(try_to(), name="tell a lost worker")
        self._told.add(task)
        task.add_done_callback(self._told.discard)

    def _someone_answers(self, besides: NodeId) -> bool:
        """Whether the fault may be the worker's: if every peer is silent it is presumed our own. With no other peer nobody can tell."""
        return self._peers.others_answer(besides)

    async def _input(self, job: Job) -> InputUpload:
        stored = await self.blobs.get(job.input)
        if stored is None:
            raise LedgerError("the input is lost", "its file is gone or damaged", "send the job again")
        return decode_message(InputUpload, stored, INPUT + 64 * KIB)

    async def _kept(self, digest: Digest) -> Signed[Any]:
        return await self.ledger.object(digest)


def _created(order: Order, inc: Digest, kept: Digest) -> jobs.Created:
    return jobs.Created(
        now_ms(), order.model, order.sem, order.params, Mode.PROVED.value, order.outm.value, inc, kept, len(order.data), order.max_price,
        order.deadline_ms, order.worker,
    )  # fmt: skip
