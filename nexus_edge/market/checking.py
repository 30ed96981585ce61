"""What a worker delivers: fetched, verified while it is written, and paid or refused."""

import asyncio
import time
from functools import partial
from typing import Any, Final

import structlog

from nexus_edge.clock import now_ms
from nexus_edge.compute import StoreError
from nexus_edge.errors import LedgerError, OpeningError, PeerError, ProofRejected
from nexus_edge.identity import short_id
from nexus_edge.ledger import Transaction, Unsynchronised
from nexus_edge.market import jobs, promises
from nexus_edge.market.answers import check_result, download
from nexus_edge.market.attempts import OVERTIME, RETRY_S, Attempts
from nexus_edge.market.evidence import Verdict as Guilt
from nexus_edge.market.evidence import check_invalid_proof, invalid_proof
from nexus_edge.market.jobs import Job, Outcome
from nexus_edge.market.machines import Events, nothing
from nexus_edge.market.ordering import Checks, Verdict
from nexus_edge.transport import PeerConnection
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import UPLOAD_BYTES_PER_S
from nexus_edge.wire.messages import ResultAnswer
from nexus_edge.wire.objects import Evidence, Lease, ProofNotice, Quote, Result
from nexus_edge.wire.refusals import Refusal
from nexus_edge.wire.signing import Signed, read_signed

FETCH_S: Final = 10.0
"""What fetching a result may take beyond the job's time and what the slowest line needs: who delivers nothing holds no job."""

log = structlog.get_logger("market")


class Answers:
    """From `accepted` to `paying`."""

    def __init__(self, attempts: Attempts, checks: Checks) -> None:
        self._attempts = attempts
        self._checks = checks

    async def fetch(self, job: Job, connection: PeerConnection, order: Lease, came: ResultAnswer | None) -> None:
        """Result, output and proof, as far as they belong together and did not come with the poll."""
        attempt = job.attempt
        over = self._attempts.live[job.id].accepted + OVERTIME * order.deadline_ms / 1000
        left = max(0.0, over - time.monotonic()) + FETCH_S + self._checks.answer_bytes(job.model) / UPLOAD_BYTES_PER_S
        try:
            async with asyncio.timeout(left):
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
            await self._attempts.give_up(job, Outcome.INVALID, bad.why)
            return
        # Verified while it is being written; what the verdict is waits for that.
        checking = asyncio.create_task(self._check(job, result.object, notice.object, answer.output, proof, answer.seed), name="verify")
        try:
            output, kept = await asyncio.gather(self._attempts.blobs.put(answer.output), self._attempts.blobs.put(proof))
            event = jobs.Delivered(now_ms(), result.id, output, notice.id, kept, result.object.run_ms, notice.object.prove_ms, answer.seed)
            verdict = await checking
            if verdict.holds:
                await self._pay(job, verdict, (event,), (result, notice))
            else:
                await self._attempts.jobs.record(job.id, event, partial(promises.keep, result, notice))
                self._attempts.live[job.id].verdict = verdict
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
        output, proof = await self._attempts.blobs.get(attempt.output), await self._attempts.blobs.get(attempt.proof)
        if output is None or proof is None:
            return Verdict("", "its answer was lost here: a file is gone or damaged", time.monotonic(), 0)
        result, notice = (
            (await self._attempts.kept(attempt.result)).of(Result).object,
            (await self._attempts.kept(attempt.notice)).of(ProofNotice).object,
        )
        return await self._check(job, result, notice, output, proof, attempt.seed)

    async def verify(self, job: Job) -> None:
        """By the verdict the answer is refused, or the payment signed: from here its bytes never change."""
        live = self._attempts.live[job.id]
        verdict = live.verdict or await self._check_stored(job)
        live.verdict = None
        if verdict.unable:
            await self._attempts.give_up(job, Outcome.FAILED, verdict.unable)
            return
        if verdict.refused:
            await self._refuse(job, verdict.refused)
            return
        await self._pay(job, verdict)

    async def _pay(
        self, job: Job, verdict: Verdict, before: tuple[jobs.Delivered, ...] = (), objects: tuple[Signed[Any], ...] = ()
    ) -> None:
        """Sign the payment. The delivery too is written in the same commit, if it is not yet: nothing leaves between the two."""
        live = self._attempts.live[job.id]
        for delivered in before:
            job = jobs.apply(delivered, job)
        attempt = job.attempt
        quote = (await self._attempts.kept((await self._attempts.kept(attempt.lease)).of(Lease).object.quote)).of(Quote).object
        claimed = quote.run_ms + quote.prove_ms
        seen = int(1000 * (verdict.began - live.accepted)) if live.accepted else 0
        event = jobs.Verified(now_ms(), verdict.took_ms, claimed, seen)

        def verified(transaction: Transaction) -> tuple[Events, None]:
            promises.keep(*objects, transaction)
            transaction.verified(attempt.worker, attempt.price)
            self._attempts.workers.note(attempt.worker, Outcome.VERIFIED, claimed, seen, transaction)
            return (*before, event), None

        def settle(transaction: Transaction) -> tuple[Events, None]:
            events, _ = verified(transaction)
            paying, _ = promises.pay(attempt, transaction)
            return (*events, *paying), None

        try:
            await self._attempts.jobs.record_made(job.id, "paying", settle)
        except Unsynchronised:
            await self._attempts.jobs.record_made(job.id, "verified", verified)
        self._attempts.workers.learn(attempt.worker, Outcome.VERIFIED, claimed, seen)
        log.info("verified", peer=short_id(attempt.worker), verify_ms=event.verify_ms)

    async def _refuse(self, job: Job, why: str) -> None:
        """A false proof: no debt, no second chance for this worker, and evidence is kept if it would convince others too."""
        attempt = job.attempt
        evidence = await self._evidence(job)
        log.warning(
            "a false proof is refused",
            peer=short_id(attempt.worker),
            reason=why,
            evidence=None if evidence is None else evidence.id.hex()[:8],
        )
        await self._attempts.give_up(job, Outcome.INVALID, why, nothing if evidence is None else partial(promises.keep, evidence))

    async def _evidence(self, job: Job) -> Signed[Evidence] | None:
        """What anyone can check; None if only this node can tell, as with an output whose seed is missing."""
        attempt, blobs = job.attempt, self._attempts.blobs
        if attempt.result is None or attempt.notice is None or attempt.proof is None:
            return None
        lease, result, notice = [await self._attempts.kept(one) for one in (attempt.lease, attempt.result, attempt.notice)]
        try:
            key = await self._checks.verifying_key(job.model)
        except StoreError as gone:
            log.warning("there is no evidence of a false proof", reason=str(gone))
            return None
        proof, kept = await blobs.get(attempt.proof), await blobs.put(key)
        signed = invalid_proof(self._attempts.key, attempt.worker, (lease, result, notice), kept)
        contents = {bytes(kept): key} | ({} if proof is None else {bytes(attempt.proof): proof})
        finding = await asyncio.to_thread(check_invalid_proof, signed.object, contents)
        return signed if finding.verdict is Guilt.PROVEN else None

    async def sign(self, job: Job) -> None:
        """The payment of a job that was verified while the worker's book was unknown."""
        try:
            await self._attempts.jobs.record_made(job.id, "paying", partial(promises.pay, job.attempt))
        except Unsynchronised:
            await asyncio.sleep(RETRY_S)
