"""The worker's side of jobs: what a peer may ask of us, each answer written before it is sent.

`LeaseBook` keeps the leases, `Letting` decides on new ones, `nexus_edge.market.running` runs them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Final

from nexus_edge.clock import now_ms
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import BlobStore, Ledger
from nexus_edge.market import leases
from nexus_edge.market.jobs import Job
from nexus_edge.market.leasebook import LeaseBook, Models, ended_refusal
from nexus_edge.market.leases import LeaseState, State
from nexus_edge.market.letting import Letting
from nexus_edge.market.machines import nothing
from nexus_edge.market.outlook import Outlook, outlook
from nexus_edge.market.quoting import Offer
from nexus_edge.market.work import BEFORE_PROVING, output_seed
from nexus_edge.transport import Caller
from nexus_edge.types import NOTHING, Digest, ModelDigest, TensorCommitment
from nexus_edge.wire.digests import input_commitment
from nexus_edge.wire.limits import CHUNK, EVENTS_PER_POLL, KIB, RESULT_KEPT_MS, SMALL_ANSWER
from nexus_edge.wire.messages import InputUpload, LeaseStatus, ObjectPart, QuoteRequest, ResultAnswer, encode_message
from nexus_edge.wire.objects import Accept, Lease, OutputMode, ProofNotice, Quote
from nexus_edge.wire.refusals import Code, Refusal, clipped
from nexus_edge.wire.signing import Signed

QUIET_S: Final = 0.25
"""A poll is not answered sooner unless the lease has ended: all the polls that a peer may have at once stay below its rate, and most jobs
are over with the first."""
HELD_INPUT: Final = 256 * KIB
"""Inputs up to here stay in memory until they have run: a full queue of them takes 16 MiB."""

Commitments = tuple[TensorCommitment, ...]


class Worker:
    """Answers peers about leases."""

    def __init__(
        self,
        key: NodeKey,
        ledger: Ledger,
        blobs: BlobStore,
        models: Models,
        offer: Callable[[], Offer],
        jobs: Callable[[], Iterable[Job]] = tuple,
    ) -> None:
        """`jobs` are our own at others: what they name is not deleted either."""
        self.book = LeaseBook(key, ledger, blobs, models, jobs)
        self.letting = Letting(self.book, offer)
        self.leases = self.book.leases
        self._offer = offer

    async def quote(self, caller: Caller, request: QuoteRequest) -> Signed[Quote]:
        """`POST /1/quotes`."""
        return await self.letting.quote(caller, request)

    async def lease(
        self, caller: Caller, lease: Signed[Lease], offered: Signed[Quote], upload: InputUpload | None = None
    ) -> Signed[Accept]:  # fmt: skip
        """`POST /1/leases`: the same bytes again get the same answer. An input that comes along is on the disk with the accept."""
        if upload is None:
            return await self.letting.take(caller, lease, offered)
        checks: list[asyncio.Task[Commitments]] = []
        check = self.book.models.commitments

        def admitted() -> None:
            # Checked while the accept is being written: both are the requester's time.
            checks.append(asyncio.create_task(check(ModelDigest(lease.object.model), upload), name="check an input"))

        try:
            accept = await self.letting.take(caller, lease, offered, admitted)
            state = self.leases.get(lease.id)
            if state is not None and state.state is State.LEASED:
                await self.put_input(caller, lease.id, upload, checks[0] if checks else None)
        finally:
            for one in checks:
                one.cancel()
            await asyncio.gather(*checks, return_exceptions=True)
        return accept

    async def put_input(self, caller: Caller, lease: Digest, upload: InputUpload, checking: Awaitable[Commitments] | None = None) -> None:
        """`PUT /1/leases/{h}/input`: an input that is not the one committed to ends the lease. `checking` finds the commitments to it."""
        state = self.book.mine(caller, lease)
        async with self.leases.lock(lease):
            state = self.leases[lease]
            if state.state is not State.LEASED:
                if state.state.is_open or state.state is State.UNPAID:
                    return
                raise ended_refusal(state)
            order = (await self.book.kept(lease)).of(Lease).object
            try:
                found = await (checking or self.book.models.commitments(state.model, upload))
            except Refusal as wrong:
                await self.book.end(state, leases.Failed(now_ms(), f"bad input: {wrong.text}"))
                raise
            if input_commitment(found) != order.inc or upload.openings < 1:
                await self.book.end(state, leases.Failed(now_ms(), "the input is not the one that the lease commits to"))
                raise Refusal(Code.BAD_INPUT, "the input is not the one that the lease commits to, or may be opened in no proof")

            def queued() -> None:
                self.book.work[lease].step("queued")
                self.book.enqueue(lease)

            if len(upload.data) <= HELD_INPUT:
                # Nothing leaves before the input is on the disk: neither this answer, nor a result, which waits for this lock.
                self.book.work[lease].upload, self.book.work[lease].commitments = upload, found
                queued()
                kept = await self.book.blobs.put(encode_message(upload))
                await self.leases.record(lease, leases.Queued(now_ms(), kept), nothing)
            else:
                kept = await self.book.blobs.put(encode_message(upload))
                await self.leases.record(lease, leases.Queued(now_ms(), kept), nothing, queued)

    async def poll(self, caller: Caller, lease: Digest, after: int, wait_ms: int) -> LeaseStatus:
        """`GET /1/leases/{h}`: waits for an event after the asked one, for progress, or for the time to be up."""
        state = self.book.mine(caller, lease)
        work = self.book.work.get(lease)
        if work is not None:
            work.polled = time.monotonic()
            if state.state.is_open and wait_ms:
                wait_s, beat = wait_ms / 1000, work.beat
                quiet_s = min(QUIET_S, wait_s)
                if not await self.leases.changed(lambda: not self.leases[lease].state.is_open, quiet_s):
                    await self.leases.changed(lambda: len(work.steps) > after or work.beat != beat, wait_s - quiet_s)
                work.polled = time.monotonic()
        status = self._status(lease, after)
        if work is not None and status.state in (State.EXECUTING, State.PROVING):
            work.told = True
        if not wait_ms or self.leases[lease].state is not State.UNPAID:
            return status
        return replace(status, answer=await self._small_answer(caller, self.leases[lease]))

    def outlook(self) -> Outlook:
        """When open leases will be done, as far as one can tell."""
        due = ((lease, work) for lease, work in self.book.work.items() if work.cancel is not None or self.book.is_runnable(lease))
        return outlook(self._offer().slots, due, time.monotonic())

    def _status(self, lease: Digest, after: int) -> LeaseStatus:
        state, work = self.leases[lease], self.book.work.get(lease)
        steps = () if work is None else tuple(step for step in work.steps if step.n > after)[:EVENTS_PER_POLL]
        running = work is not None and state.state is State.QUEUED and work.phase
        return LeaseStatus(
            state=(State.EXECUTING if work.phase in BEFORE_PROVING else State.PROVING).value
            if work is not None and running
            else state.state.value,
            phase="" if work is None else work.phase,
            done_ppm=0 if work is None else work.done_ppm,
            eta_ms=self.outlook().left_ms.get(lease) if state.state.is_open else None,
            beat=0 if work is None else work.beat,
            reason=clipped(state.reason, 200),
            owed=state.owed if state.entry is None else NOTHING,
            events=steps,
            answer=None,
        )

    async def result(self, caller: Caller, lease: Digest) -> ResultAnswer:
        """`GET /1/leases/{h}/result`."""
        state = self.book.mine(caller, lease)
        if state.state.is_open:
            raise Refusal(Code.CONFLICT, f"there is no result yet: the lease is {state.state.value}", retry_ms=1000)
        if state.result is None or state.output is None or state.notice is None:
            raise ended_refusal(state)
        result, notice = await self.book.kept(state.result), (await self.book.kept(state.notice)).of(ProofNotice)
        order = (await self.book.kept(lease)).of(Lease).object
        seed = output_seed(self.book.key, lease, order.inc) if order.outm == OutputMode.COMMITTED else None
        if (made := self.book.made(lease)) is not None and made.size <= SMALL_ANSWER:
            return ResultAnswer(result.to_bytes(), made.output, notice.to_bytes(), seed, made.proof)
        output = await self.book.blobs.get(state.output)
        if output is None:
            raise Refusal(Code.LEASE_ENDED, f"results are kept for {RESULT_KEPT_MS // 3_600_000} hours")
        is_small = len(output) + notice.object.len <= SMALL_ANSWER
        content = await self.book.blobs.get(notice.object.proof) if is_small else None
        return ResultAnswer(result.to_bytes(), output, notice.to_bytes(), seed, content)

    async def _small_answer(self, caller: Caller, lease: LeaseState) -> ResultAnswer | None:
        """What there is to fetch, if it fits an answer to a poll."""
        if lease.output is None or lease.notice is None:
            return None
        size = await self.book.size_of(lease.id, lease.output)
        if size is None or size + (await self.book.kept(lease.notice)).of(ProofNotice).object.len > SMALL_ANSWER:
            return None  # whoever asks for it by itself gets it, or is told that it is not kept any more
        return await self.result(caller, lease.id)

    async def get_object(self, caller: Caller, digest: Digest, start: int, length: int) -> ObjectPart:
        """`GET /1/objects/{h}`: the proofs of the caller's own leases."""
        lease = self.book.of_proof(digest)
        if lease is None or lease.requester != caller.peer:
            raise Refusal(Code.NOT_FOUND, "no proof for you has this digest")
        content = await self.book.blobs.get(digest)
        if content is None:
            raise Refusal(Code.NOT_FOUND, "the proof is not kept any more")
        return ObjectPart(content[start : start + min(length, CHUNK)], len(content))

    async def cancel(self, caller: Caller, lease: Digest) -> LeaseStatus:
        """`POST /1/leases/{h}/cancel`: what is known to have begun costs the start fee."""
        state = self.book.mine(caller, lease)
        async with self.leases.lock(lease):
            state = self.leases[lease]
            if state.state.is_open:
                work = self.book.work[lease]
                if work.cancel is not None:
                    work.cancel()
                await self.book.end(state, leases.Cancelled(now_ms(), state.start_fee if work.costs_fee else NOTHING))
        return await self.poll(caller, lease, 0, 0)
