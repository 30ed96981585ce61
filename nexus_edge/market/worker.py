"""The worker's side of jobs: what a peer may ask of us, each answer written before it is sent.

`Worker` keeps the leases; `nexus_edge.market.running` runs them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from nexus_edge.clock import now_ms, ticking_ms
from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import Account, BlobStore, Ledger, NoCredit, Transaction
from nexus_edge.market import leases, quoting
from nexus_edge.market.events import Event
from nexus_edge.market.fairness import FairQueue, Ticket
from nexus_edge.market.leases import LeaseState, State
from nexus_edge.market.machines import Machines, Rules, nothing
from nexus_edge.market.pricing import core_ms
from nexus_edge.market.quoting import Forecast, Offer
from nexus_edge.transport import Caller
from nexus_edge.transport.rates import Rates
from nexus_edge.types import NOTHING, Digest, JobId, ModelDigest, NodeId, UnixMs
from nexus_edge.wire.digests import audit_commitment
from nexus_edge.wire.limits import (
    CHUNK,
    EVENTS_PER_POLL,
    KIB,
    OPEN_LEASES,
    OPEN_LEASES_OF_STRANGERS,
    OPEN_LEASES_PER_ACCOUNT,
    PROOF_KEPT_MS,
    RESULT_KEPT_MS,
    SMALL_ANSWER,
    UPLOAD_BYTES_PER_S,
)
from nexus_edge.wire.messages import InputUpload, LeaseEvent, LeaseStatus, ObjectPart, QuoteRequest, ResultAnswer, encode_message
from nexus_edge.wire.objects import Accept, Lease, Mode, OutputMode, ProofNotice, Quote
from nexus_edge.wire.refusals import Code, Refusal, clipped
from nexus_edge.wire.signing import Signed, sign

RULES: Final = Rules[LeaseState]("lease", leases.EVENTS, leases.begin, leases.apply)

BEFORE_PROVING: Final = ("load", "execute")
"""Phases of a child before it proves."""
QUIET_S: Final = 0.25
"""A poll is not answered sooner unless the lease has ended: all the polls that a peer may have at once stay below its rate, and most jobs
are over with the first."""
HELD_INPUT: Final = 256 * KIB
"""Inputs up to here stay in memory until they have run: a full queue of them takes 16 MiB."""
INPUT_GRACE_S: Final = 30.0
"""How long an input may take beyond its size over the slowest line that is served."""
ENDED_KEPT: Final = 1024
"""Leases that ended with nothing done and are remembered: they cost their requester nothing, so there may be many."""
ENDED_KEPT_S: Final = 60.0
"""How long they are remembered at least, so that a late request learns why: longer than any quote holds."""

FREE_LEASES_PER_S: Final = 0.1
FREE_LEASES: Final = 256
"""Leases of one account for which nothing is owed in the end: so many, and then one in ten seconds. Each is rows for ever."""
OPEN_RETRY_MS: Final = 1000
"""Leases end all the time."""
WORK_KEPT_S: Final = 300.0
"""How long after its last poll the steps of a lease that has ended are shown: its state is kept for ever."""


class Models(Protocol):
    """The models that are here."""

    def forecast(self, model: ModelDigest, params: str, sem: str) -> Forecast | None:
        """What a job takes; None for a model that is not here. Raises a refusal for parameters or semantics that do not fit it."""

    async def commitments(self, model: ModelDigest, upload: InputUpload) -> Digest:
        """The `inc` of an input. Raises a `bad-input` refusal if it is not one of the model's."""

    def invite(self, peer: NodeId, model: ModelDigest, params: str) -> None:
        """Let a peer upload a model that a quote to it named as missing."""

    def pin(self, model: ModelDigest) -> None:
        """Keep it while a lease is open."""

    def unpin(self, model: ModelDigest) -> None:
        """Once for each `pin`."""


@dataclass
class Work:
    """What is known of an open lease besides its events: lost with the process, and not missed."""

    accepted: float
    """On the monotonic clock."""
    account: bytes | str
    """On whose account it is open: the requester's or its fleet's, or for one without a line that of all at its prefix."""
    prefix: str = ""
    line: int = 0
    """What it weighed when it came: what the requester is lent for its own sake, or its fleet."""
    cost: int = 0
    """Forecast core-milliseconds."""
    patience_s: float = INPUT_GRACE_S
    """How long its input may take."""
    phase: str = ""
    done_ppm: int = 0
    beat: int = 0
    polled: float = field(default_factory=time.monotonic)
    steps: list[LeaseEvent] = field(default_factory=list)
    upload: InputUpload | None = None
    """An input that is not large, since it came, until it has run: work begins while it is being written."""
    cancel: Callable[[], object] | None = None
    """Stops it, while it runs."""

    def step(self, kind: str, detail: str = "") -> None:
        """Note an event for those who poll."""
        self.steps.append(LeaseEvent(len(self.steps) + 1, int(1000 * (time.monotonic() - self.accepted)), kind, clipped(detail, 200)))


class Worker:
    """Leases that others have with us."""

    def __init__(self, key: NodeKey, ledger: Ledger, blobs: BlobStore, models: Models, offer: Callable[[], Offer]) -> None:
        self.key = key
        self.ledger = ledger
        self.blobs = blobs
        self.models = models
        self.leases = Machines(ledger, RULES)
        self.work: dict[Digest, Work] = {}
        self.ready = FairQueue()
        self.draining = False
        self.moved = asyncio.Event()
        """Set when work has progressed."""
        self._offer = offer
        self._since = ticking_ms()
        self._by_number: dict[tuple[bytes, JobId, int], Digest] = {}
        self._by_proof: dict[Digest, Digest] = {}
        self._quotes: dict[Digest, float] = {}
        """Those that were taken, by this process, since it takes none that another signed; and when, until they are out of date."""
        self._ended: deque[tuple[float, Digest]] = deque()
        self._free = Rates(FREE_LEASES_PER_S, FREE_LEASES)
        self._admission = asyncio.Lock()

    async def load(self) -> None:
        """Take up every lease where it was: with its input it is run again, without it ends."""
        await self.leases.load()
        for lease in self.leases:
            self._by_number[(lease.requester, lease.job, lease.attempt)] = lease.id
            if lease.proof is not None:
                self._by_proof[lease.proof] = lease.id
            if not lease.state.is_open:
                self._note_ended(lease)
                continue
            known = await self._account(lease.requester)
            self.work[lease.id] = Work(time.monotonic(), known.name or lease.requester, line=known.line, cost=lease.price)
            try:
                self.models.pin(lease.model)
            except Refusal as gone:
                await self._close(lease, leases.Failed(now_ms(), gone.text))
                continue
            if lease.input is not None and await self.blobs.has(lease.input):
                self.enqueue(lease.id)
            else:
                await self.end(lease, leases.Failed(now_ms(), "restarted"))

    # What peers ask

    async def quote(self, caller: Caller, request: QuoteRequest) -> Signed[Quote]:
        """`POST /1/quotes`."""
        self._refuse_draining()
        room, known = await self.ledger.read(
            lambda reader: (reader.room(caller.peer, caller.prefix, private=caller.private), reader.account(caller.peer))
        )
        self._check_open(caller, known)
        forecast = self.models.forecast(ModelDigest(request.model), request.params, request.sem)
        if forecast is None:
            self.models.invite(caller.peer, ModelDigest(request.model), request.params)
            return quoting.invitation(self.key, caller.peer, request, room)
        return quoting.quote(self.key, caller.peer, request, forecast, self._offer(), room)

    async def lease(
        self, caller: Caller, lease: Signed[Lease], offered: Signed[Quote], upload: InputUpload | None = None
    ) -> Signed[Accept]:  # fmt: skip
        """`POST /1/leases`: the same bytes again get the same answer. An input that comes along is on the disk with the accept."""
        known = self.leases.get(lease.id)
        if known is not None:
            accept = await self._accept_of(known)
        else:
            # Once begun it is gone through with, or a second copy could be let in while the first is being written.
            accept = await asyncio.shield(asyncio.create_task(self._decide(caller, lease, offered), name=f"lease {lease.id.hex()[:8]}"))
        if upload is not None and self.leases[lease.id].state is State.LEASED:
            await self.put_input(caller, lease.id, upload)
        return accept

    async def _decide(self, caller: Caller, lease: Signed[Lease], offered: Signed[Quote]) -> Signed[Accept]:
        order = lease.object
        number = (order.iss, order.job, order.att)
        async with self._admission:
            self._forget_quotes()
            if number in self._by_number or offered.id in self._quotes:
                if self._by_number.get(number) == lease.id:  # the same bytes, sent twice at once
                    return await self._accept_of(self.leases[lease.id])
                raise Refusal(Code.CONFLICT, "another lease has this job and attempt, or takes this quote")
            self._refuse_draining()
            quoting.check_terms(self.key, order, offered, ticking_ms(), self._since)
            known = await self._account(caller.peer)
            account = self._check_open(caller, known)
            if order.outm not in (OutputMode.CLEAR, OutputMode.COMMITTED):
                raise Refusal(Code.BAD_OBJECT, f"no output is of kind {order.outm}")
            forecast = self.models.forecast(ModelDigest(order.model), order.params, order.sem)
            if forecast is None:
                raise Refusal(Code.MODEL_MISSING, "the model has left since the quote: ask again")
            quoting.check_room(forecast, self._offer())
            wait = self._free.take(account)
            if wait:
                raise Refusal(Code.BUSY, "too many leases of yours came to nothing", retry_ms=int(1000 * wait) + 1)
            patience_s = INPUT_GRACE_S + forecast.input_bytes / UPLOAD_BYTES_PER_S
            cost = core_ms(Mode(order.mode), forecast.core_run_ms, forecast.core_prove_ms)
            work = Work(time.monotonic(), account, caller.prefix, known.line, cost, patience_s)
            return await self._admit(caller, lease, offered, work)

    async def _admit(self, caller: Caller, lease: Signed[Lease], offered: Signed[Quote], work: Work) -> Signed[Accept]:
        order = lease.object
        commit = audit_commitment(order.job, order.att, self.key.id, bytes(32))
        accept = sign(self.key, Accept(iss=self.key.id, at=now_ms(), to=order.iss, lease=lease.id, commit=commit))

        def admit(transaction: Transaction) -> None:
            transaction.keep(offered)
            transaction.keep(accept)
            transaction.admit(lease, caller.prefix, private=caller.private)

        model = ModelDigest(order.model)
        self.models.pin(model)

        def leased() -> None:
            self._by_number[(order.iss, order.job, order.att)] = lease.id
            self._quotes[offered.id] = work.accepted
            self.work[lease.id] = work
            work.step("leased")

        try:
            await self.leases.begin(lease.id, leases.Leased.of(now_ms(), lease, accept.id), admit, leased)
        except NoCredit as short:
            self.models.unpin(model)
            raise Refusal(Code.NO_CREDIT, str(short.why), room=short.room) from None
        except LedgerError:
            self.models.unpin(model)
            raise
        return accept

    async def put_input(self, caller: Caller, lease: Digest, upload: InputUpload) -> None:
        """`PUT /1/leases/{h}/input`: an input that is not the one committed to ends the lease."""
        state = self._mine(caller, lease)
        async with self.leases.lock(lease):
            state = self.leases[lease]
            if state.state is not State.LEASED:
                if state.state.is_open or state.state is State.UNPAID:
                    return
                raise _ended(state)
            order = (await self._kept(lease)).of(Lease).object
            try:
                found = await self.models.commitments(state.model, upload)
            except Refusal as wrong:
                await self.end(state, leases.Failed(now_ms(), f"bad input: {wrong.text}"))
                raise
            if found != order.inc or upload.openings < 1:
                await self.end(state, leases.Failed(now_ms(), "the input is not the one that the lease commits to"))
                raise Refusal(Code.BAD_INPUT, "the input is not the one that the lease commits to, or may be opened in no proof")

            def queued() -> None:
                self.work[lease].step("queued")
                self.enqueue(lease)

            if len(upload.data) <= HELD_INPUT:
                # Nothing leaves before the input is on the disk: neither this answer, nor a result, which waits for this lock.
                self.work[lease].upload = upload
                queued()
                kept = await self.blobs.put(encode_message(upload))
                await self.leases.record(lease, leases.Queued(now_ms(), kept), nothing)
            else:
                kept = await self.blobs.put(encode_message(upload))
                await self.leases.record(lease, leases.Queued(now_ms(), kept), nothing, queued)

    async def poll(self, caller: Caller, lease: Digest, after: int, wait_ms: int) -> LeaseStatus:
        """`GET /1/leases/{h}`: waits for an event after the asked one, for progress, or for the time to be up."""
        state = self._mine(caller, lease)
        work = self.work.get(lease)
        if work is not None:
            work.polled = time.monotonic()
            if state.state.is_open and wait_ms:
                wait_s, beat = wait_ms / 1000, work.beat
                quiet_s = min(QUIET_S, wait_s)
                if not await self.leases.changed(lambda: not self.leases[lease].state.is_open, quiet_s):
                    await self.leases.changed(lambda: len(work.steps) > after or work.beat != beat, wait_s - quiet_s)
                work.polled = time.monotonic()
        status = self._status(lease, after)
        if not wait_ms or self.leases[lease].state is not State.UNPAID:
            return status
        return replace(status, answer=await self._small_answer(caller, self.leases[lease]))

    def _status(self, lease: Digest, after: int) -> LeaseStatus:
        state, work = self.leases[lease], self.work.get(lease)
        steps = () if work is None else tuple(step for step in work.steps if step.n > after)[:EVENTS_PER_POLL]
        running = work is not None and state.state is State.QUEUED and work.phase
        return LeaseStatus(
            state=(State.EXECUTING if work.phase in BEFORE_PROVING else State.PROVING).value
            if work is not None and running
            else state.state.value,
            phase="" if work is None else work.phase,
            done_ppm=0 if work is None else work.done_ppm,
            eta_ms=None,
            beat=0 if work is None else work.beat,
            reason=clipped(state.reason, 200),
            owed=state.owed if state.entry is None else NOTHING,
            events=steps,
            answer=None,
        )

    async def result(self, caller: Caller, lease: Digest) -> ResultAnswer:
        """`GET /1/leases/{h}/result`."""
        state = self._mine(caller, lease)
        if state.state.is_open:
            raise Refusal(Code.CONFLICT, f"there is no result yet: the lease is {state.state.value}", retry_ms=1000)
        if state.result is None or state.output is None or state.notice is None:
            raise _ended(state)
        output = await self.blobs.get(state.output)
        if output is None:
            raise Refusal(Code.LEASE_ENDED, f"results are kept for {RESULT_KEPT_MS // 3_600_000} hours")
        result, notice = await self._kept(state.result), (await self._kept(state.notice)).of(ProofNotice)
        order = (await self._kept(lease)).of(Lease).object
        seed = output_seed(self.key, lease, order.inc) if order.outm == OutputMode.COMMITTED else None
        is_small = len(output) + notice.object.len <= SMALL_ANSWER
        content = await self.blobs.get(notice.object.proof) if is_small else None
        return ResultAnswer(result.to_bytes(), output, notice.to_bytes(), seed, content)

    async def _small_answer(self, caller: Caller, lease: LeaseState) -> ResultAnswer | None:
        """What there is to fetch, if it fits an answer to a poll."""
        if lease.output is None or lease.notice is None:
            return None
        size = await self.blobs.size(lease.output)
        if size is None or size + (await self._kept(lease.notice)).of(ProofNotice).object.len > SMALL_ANSWER:
            return None  # whoever asks for it by itself gets it, or is told that it is not kept any more
        return await self.result(caller, lease.id)

    async def get_object(self, caller: Caller, digest: Digest, start: int, length: int) -> ObjectPart:
        """`GET /1/objects/{h}`: the proofs of the caller's own leases."""
        lease = self.leases.get(self._by_proof.get(digest, Digest(b"")))
        if lease is None or lease.requester != caller.peer:
            raise Refusal(Code.NOT_FOUND, "no proof for you has this digest")
        content = await self.blobs.get(digest)
        if content is None:
            raise Refusal(Code.NOT_FOUND, "the proof is not kept any more")
        return ObjectPart(content[start : start + min(length, CHUNK)], len(content))

    async def cancel(self, caller: Caller, lease: Digest) -> LeaseStatus:
        """`POST /1/leases/{h}/cancel`: what has begun costs the start fee."""
        state = self._mine(caller, lease)
        async with self.leases.lock(lease):
            state = self.leases[lease]
            if state.state.is_open:
                work = self.work[lease]
                begun = bool(work.phase)
                if work.cancel is not None:
                    work.cancel()
                await self.end(state, leases.Cancelled(now_ms(), state.start_fee if begun else NOTHING))
        return await self.poll(caller, lease, 0, 0)

    # What happens to leases

    async def end(self, lease: LeaseState, event: Event) -> None:
        """Write how an open lease ended, and release what it held: all but a fee that is owed."""
        await self._close(lease, event, lambda: self.models.unpin(lease.model))

    async def _close(self, lease: LeaseState, event: Event, then: Callable[[], None] = lambda: None) -> None:
        """Likewise, for a lease that may not hold its model."""
        owed = event.owed if isinstance(event, leases.Cancelled) else NOTHING

        def release(transaction: Transaction) -> None:
            if owed:
                transaction.owe(lease.id, lease.id, owed)
            else:
                transaction.settle_nothing(lease.id)

        def ended() -> None:
            then()
            state = self.leases[lease.id]
            self._note_ended(state)
            work = self.work.get(lease.id)
            if work is not None:
                if owed:
                    self._free.give(work.account, 1)
                work.step(state.state.value, state.reason)

        await self.leases.record(lease.id, event, release, ended)

    async def expire(self) -> None:
        """End leases whose input or result did not come in time. Called every second or so."""
        now = time.monotonic()
        for lease_id, work in list(self.work.items()):
            async with self.leases.lock(lease_id):
                lease = self.leases.get(lease_id)
                if lease is None:
                    continue  # forgotten while others were looked at
                if not lease.state.is_open:
                    if now - work.polled > WORK_KEPT_S:
                        del self.work[lease_id]
                    continue
                age = now - work.accepted
                patience = work.patience_s if lease.state is State.LEASED else lease.deadline_ms / 1000
                if age <= patience:
                    continue
                if work.cancel is not None:
                    work.cancel()
                why = "no input came" if lease.state is State.LEASED else "the deadline passed"
                await self.end(lease, leases.Expired(now_ms(), why))
        await self._forget_many()

    def delivered(self, lease: Digest, proof: Digest) -> None:
        """Its proof can be fetched."""
        self._by_proof[proof] = lease
        self._free.give(self.work[lease].account, 1)

    def forget(self, now: UnixMs) -> None:
        """Leave to the ledger what has ended so long ago, or waits so long for its payment, that nobody will ask for it any more."""
        for lease in self.leases:
            settled = lease.ended is not None and lease.ended + RESULT_KEPT_MS <= now
            given_up = lease.delivered is not None and lease.delivered + PROOF_KEPT_MS <= now
            if settled or given_up:
                self._forget(lease)

    def _forget_quotes(self) -> None:
        """Those that hold no more: they are refused by their age."""
        before = time.monotonic() - 2 * quoting.TTL_MS / 1000
        while self._quotes and next(iter(self._quotes.values())) < before:
            del self._quotes[next(iter(self._quotes))]

    async def _forget_many(self) -> None:
        """Those that ended with nothing done, beyond a number: each was free, and there may be any number of them."""
        while len(self._ended) > ENDED_KEPT and time.monotonic() - self._ended[0][0] > ENDED_KEPT_S:
            lease = self.leases.get(self._ended.popleft()[1])
            if lease is not None:
                if lease.input is not None:
                    await self.blobs.drop(lease.input)
                self._forget(lease)

    def _forget(self, lease: LeaseState) -> None:
        self.leases.forget(lease.id)
        self.work.pop(lease.id, None)
        self._by_number.pop((lease.requester, lease.job, lease.attempt), None)
        if lease.proof is not None:
            self._by_proof.pop(lease.proof, None)

    def _note_ended(self, lease: LeaseState) -> None:
        """A lease ended: its quote is out of date before it is forgotten."""
        if lease.result is None:
            self._ended.append((time.monotonic(), lease.id))

    def enqueue(self, lease: Digest) -> None:
        """Its input is here: it waits for its turn."""
        work = self.work[lease]
        account = NodeId(work.account) if isinstance(work.account, bytes) else self.leases[lease].requester
        self.ready.put(Ticket(lease, account, work.prefix, work.line, work.cost))

    def is_runnable(self, lease: Digest) -> bool:
        """Whether it is to be run, and is not being run: once only, as an input that could not be written comes again."""
        state, work = self.leases.get(lease), self.work.get(lease)
        if state is None or work is None or work.cancel is not None:
            return False
        return state.state is State.QUEUED or (state.state is State.LEASED and work.upload is not None)

    async def _account(self, peer: NodeId) -> Account:
        return await self.ledger.read(lambda reader: reader.account(peer))

    def _refuse_draining(self) -> None:
        if self.draining:
            raise Refusal(Code.DRAINING, "this node takes no new work", retry_ms=60_000)

    def _check_open(self, caller: Caller, known: Account) -> bytes | str:
        """The account that one more lease would be on. Raises a `busy` refusal if there are too many.

        Names cost nothing: those who have no line share one account at each prefix.
        """
        account = known.name or caller.prefix
        accounts = [work.account for lease, work in self.work.items() if self.leases[lease].state.is_open]
        if len(accounts) >= OPEN_LEASES:
            raise Refusal(Code.BUSY, f"{len(accounts)} leases are open", retry_ms=OPEN_RETRY_MS)
        if known.name is None and sum(isinstance(one, str) for one in accounts) >= OPEN_LEASES_OF_STRANGERS:
            raise Refusal(Code.BUSY, f"{OPEN_LEASES_OF_STRANGERS} leases of nodes that are new here are open", retry_ms=OPEN_RETRY_MS)
        if accounts.count(account) >= OPEN_LEASES_PER_ACCOUNT:
            whose = (
                "you and others at your address who are new here have"
                if known.name is None
                else "you have"
                if known.name == caller.peer
                else "your fleet has"
            )
            raise Refusal(Code.BUSY, f"{whose} {OPEN_LEASES_PER_ACCOUNT} leases open", retry_ms=OPEN_RETRY_MS)
        return account

    def _mine(self, caller: Caller, lease: Digest) -> LeaseState:
        """The caller's lease. One of others is as unknown to it as none."""
        state = self.leases.get(lease)
        if state is None or state.requester != caller.peer:
            raise Refusal(Code.NOT_FOUND, "there is no such lease of yours")
        return state

    async def _accept_of(self, lease: LeaseState) -> Signed[Accept]:
        if lease.state in (State.EXPIRED, State.CANCELLED, State.FAILED):
            raise _ended(lease)
        return (await self._kept(lease.accept)).of(Accept)

    async def _kept(self, digest: Digest) -> Signed[Any]:
        return await self.ledger.object(digest)


def output_seed(key: NodeKey, lease: Digest, inc: Digest) -> bytes:
    """Of the commitment to a lease's output: nobody else can derive it, and running the job again gives the same. The input decides the output."""
    return key.secret("output commitment", lease, inc)


def _ended(lease: LeaseState) -> Refusal:
    return Refusal(Code.LEASE_ENDED, f"the lease is {lease.state.value}: {lease.reason or 'nothing more to get'}")
