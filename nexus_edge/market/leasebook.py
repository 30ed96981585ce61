"""The leases that others have with us: from their first event until nobody asks for them any more."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from nexus_edge.clock import now_ms
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import Account, BlobStore, Ledger, Transaction
from nexus_edge.market import leases
from nexus_edge.market.events import Event
from nexus_edge.market.fairness import FairQueue, Ticket
from nexus_edge.market.jobs import Job
from nexus_edge.market.keeping import contents
from nexus_edge.market.leases import LeaseState, State
from nexus_edge.market.machines import Machines, Rules
from nexus_edge.market.quoting import Forecast
from nexus_edge.market.work import Work
from nexus_edge.transport import Caller
from nexus_edge.transport.rates import Rates
from nexus_edge.types import NOTHING, Digest, JobId, ModelDigest, NodeId, TensorCommitment
from nexus_edge.wire.limits import PROOF_KEPT_MS, RESULT_KEPT_MS, SMALL_ANSWER
from nexus_edge.wire.messages import InputUpload
from nexus_edge.wire.objects import Lease
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed

RULES: Final = Rules[LeaseState]("lease", leases.EVENTS, leases.begin, leases.apply, lambda lease: not lease.state.is_open)

ENDED_KEPT: Final = 1024
"""Leases that ended with nothing done and are remembered: they cost their requester nothing, so there may be many."""
ENDED_KEPT_S: Final = 60.0
"""How long they are remembered at least, so that a late request learns why: longer than any quote holds."""
FREE_LEASES_PER_S: Final = 0.1
FREE_LEASES: Final = 256
"""Leases of one account for which nothing is owed in the end: so many, and then one in ten seconds. Each is rows for ever."""
HELD_ANSWERS: Final = 16
"""As many as are likely to be fetched next; each has a MiB at most."""
WORK_KEPT_S: Final = 300.0
"""How long after its last poll the steps of a lease that has ended are shown: its state is kept for ever."""


@dataclass(frozen=True)
class Made:
    """What a child made of a lease."""

    output: bytes
    proof: bytes

    @property
    def size(self) -> int:
        """Of both."""
        return len(self.output) + len(self.proof)


class Models(Protocol):
    """The models that are here."""

    def forecast(self, model: ModelDigest, params: str, sem: str) -> Forecast | None:
        """What a job takes; None for a model that is not here. Raises a refusal for parameters or semantics that do not fit it."""

    async def commitments(self, model: ModelDigest, upload: InputUpload) -> tuple[TensorCommitment, ...]:
        """The commitments to an input, in the model's order. Raises a `bad-input` refusal if it is not one of the model's."""

    def invite(self, peer: NodeId, model: ModelDigest, params: str) -> None:
        """Let a peer upload a model that a quote to it named as missing."""

    def pin(self, model: ModelDigest) -> None:
        """Keep it while a lease is open."""

    def unpin(self, model: ModelDigest) -> None:
        """Once for each `pin`."""


class LeaseBook:
    """Open leases, and those that somebody may still ask for."""

    def __init__(self, key: NodeKey, ledger: Ledger, blobs: BlobStore, models: Models, jobs: Callable[[], Iterable[Job]]) -> None:
        """`jobs` are our own at others: what they name is not deleted either."""
        self.key = key
        self.ledger = ledger
        self.blobs = blobs
        self.models = models
        self.leases = Machines(ledger, RULES)
        self.work: dict[Digest, Work] = {}
        self.ready = FairQueue()
        self.moved = asyncio.Event()
        """Set when work has progressed."""
        self.by_number: dict[tuple[bytes, JobId, int], Digest] = {}
        self.free = Rates(FREE_LEASES_PER_S, FREE_LEASES)
        """For leases that come to nothing, by account."""
        self._jobs = jobs
        self._made: OrderedDict[Digest, Made] = OrderedDict()
        self._by_proof: dict[Digest, Digest] = {}
        self._ended: deque[tuple[float, Digest]] = deque()
        self._inputs: deque[tuple[float, Digest]] = deque()
        """Of leases that are over, until they are deleted."""

    async def load(self) -> None:
        """Take up every lease where it was: with its input it is run again, without it ends, and so it does if its deadline has passed."""
        await self.leases.load()
        for lease in self.leases:
            self.by_number[(lease.requester, lease.job, lease.attempt)] = lease.id
            if lease.proof is not None:
                self._by_proof[lease.proof] = lease.id
            if not lease.state.is_open:
                self._note_ended(lease)
                continue
            known = await self.account(lease.requester)
            # Its requester has counted on while we were down. A clock that was set forward meanwhile costs it another try, and nobody anything.
            waited_ms = max(0, now_ms() - lease.at)
            accepted = time.monotonic() - waited_ms / 1000
            self.work[lease.id] = Work(accepted, known.name or lease.requester, line=known.line, cost=lease.price)
            order = (await self.kept(lease.id)).of(Lease).object
            try:
                self.work[lease.id].forecast = self.models.forecast(lease.model, order.params, order.sem)
                self.models.pin(lease.model)
            except Refusal as gone:
                await self.close(lease, leases.Failed(now_ms(), gone.text))
                continue
            if waited_ms > lease.deadline_ms:
                await self.end(lease, leases.Expired(now_ms(), "the deadline passed while this node was down"))
            elif lease.input is not None and await self.blobs.has(lease.input):
                self.enqueue(lease.id)
            else:
                await self.end(lease, leases.Failed(now_ms(), "restarted"))

    async def end(self, lease: LeaseState, event: Event) -> None:
        """Write how an open lease ended, and release what it held: all but a fee that is owed."""
        await self.close(lease, event, lambda: self.models.unpin(lease.model))

    async def close(self, lease: LeaseState, event: Event, then: Callable[[], None] = lambda: None) -> None:
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
                work.upload = None
                if owed:
                    self.free.give(work.account, 1)
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
        await self._drop_inputs()

    def delivered(self, lease: Digest, proof: Digest) -> None:
        """Its proof can be fetched."""
        self._by_proof[proof] = lease
        self._note_ended(self.leases[lease])
        self.free.give(self.work[lease].account, 1)

    def hold(self, lease: Digest, made: Made) -> None:
        """Keep an answer that is on the disk in memory too, if it is small: most are fetched within a moment, and once."""
        if made.size <= SMALL_ANSWER:
            self._made[lease] = made
        if len(self._made) > HELD_ANSWERS:
            self._made.popitem(last=False)

    def made(self, lease: Digest) -> Made | None:
        """Take it out of memory, if it is still there."""
        return self._made.pop(lease, None)

    async def size_of(self, lease: Digest, output: Digest) -> int | None:
        """Bytes of a lease's output; None if it is not kept any more."""
        made = self._made.get(lease)
        return await self.blobs.size(output) if made is None else len(made.output)

    def of_proof(self, digest: Digest) -> LeaseState | None:
        """The lease whose proof it is."""
        return self.leases.get(self._by_proof.get(digest, Digest(b"")))

    async def forget(self) -> None:
        """Leave to the ledger what has ended so long ago, or waits so long for its payment, that nobody will ask for it any more."""

        def is_old(lease: LeaseState) -> bool:
            return (self.leases.over_ms(lease.id) or 0) >= (PROOF_KEPT_MS if lease.state is State.UNPAID else RESULT_KEPT_MS)

        await self._forget([lease for lease in self.leases if is_old(lease)])

    async def _forget_many(self) -> None:
        """Those that ended with nothing done, beyond a number: each was free, and there may be any number of them."""
        gone = []
        while len(self._ended) > ENDED_KEPT and time.monotonic() - self._ended[0][0] > ENDED_KEPT_S:
            lease = self.leases.get(self._ended.popleft()[1])
            if lease is not None:
                gone.append(lease)
        await self._forget(gone)

    async def _drop_inputs(self) -> None:
        """Nobody needs the input of a lease that is over: one that came to nothing costs a disk no more than the moments that it was open."""
        over = set()
        while self._inputs and time.monotonic() - self._inputs[0][0] > ENDED_KEPT_S:
            over.add(self._inputs.popleft()[1])
        if over:
            over -= {lease.input for lease in self.leases if lease.input is not None and lease.state.is_open}
            over -= {digest for job in self._jobs() for digest, _ in contents(job)}
        for digest in over:
            await self.blobs.drop(digest, unused_s=ENDED_KEPT_S)  # or somebody has just kept it, and has not written down what for

    async def _forget(self, gone: Sequence[LeaseState]) -> None:
        await self.leases.forget([lease.id for lease in gone])
        for lease in gone:
            self.work.pop(lease.id, None)
            self.by_number.pop((lease.requester, lease.job, lease.attempt), None)
            if lease.proof is not None:
                self._by_proof.pop(lease.proof, None)

    def _note_ended(self, lease: LeaseState) -> None:
        """A lease is over: its quote is out of date before it is forgotten."""
        if lease.result is None:
            self._ended.append((time.monotonic(), lease.id))
        if lease.input is not None:
            self._inputs.append((time.monotonic(), lease.input))

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

    async def account(self, peer: NodeId) -> Account:
        """On whose account a peer asks: its own or its fleet's, if that has a line."""
        return await self.ledger.read(lambda reader: reader.account(peer))

    def mine(self, caller: Caller, lease: Digest) -> LeaseState:
        """The caller's lease. One of others is as unknown to it as none."""
        state = self.leases.get(lease)
        if state is None or state.requester != caller.peer:
            raise Refusal(Code.NOT_FOUND, "there is no such lease of yours")
        return state

    async def kept(self, digest: Digest) -> Signed[Any]:
        """A signed object that the ledger has."""
        return await self.ledger.object(digest)


def ended_refusal(lease: LeaseState) -> Refusal:
    """What is said of a lease from which nothing more comes."""
    return Refusal(Code.LEASE_ENDED, f"the lease is {lease.state.value}: {lease.reason or 'nothing more to get'}")
