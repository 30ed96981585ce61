"""A worker's lease: frozen state, events, and the pure `apply` that rebuilds the one from the others."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from nexus_edge.errors import LedgerError
from nexus_edge.market.events import Event
from nexus_edge.types import NOTHING, Digest, JobId, MicroCredits, ModelDigest, NodeId, UnixMs
from nexus_edge.wire.objects import Lease as LeaseObject
from nexus_edge.wire.signing import Signed


class State(StrEnum):
    """Where a lease stands. `audited` comes with sampled jobs."""

    LEASED = "leased"
    QUEUED = "queued"
    EXECUTING = "executing"
    PROVING = "proving"
    UNPAID = "unpaid"
    SETTLED = "settled"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_open(self) -> bool:
        """Whether work is to be done."""
        return self in (State.LEASED, State.QUEUED, State.EXECUTING, State.PROVING)


@dataclass(frozen=True)
class LeaseState:
    """A lease as its events tell it. `executing` and `proving` are never written: a restart runs the job again, and gets the same bits."""

    id: Digest
    at: UnixMs
    requester: NodeId
    job: JobId
    attempt: int
    model: ModelDigest
    price: MicroCredits
    start_fee: MicroCredits
    deadline_ms: int
    accept: Digest
    state: State = State.LEASED
    input: Digest | None = None
    result: Digest | None = None
    output: Digest | None = None
    notice: Digest | None = None
    proof: Digest | None = None
    run_ms: int = 0
    prove_ms: int = 0
    reason: str = ""
    delivered: UnixMs | None = None
    owed: MicroCredits = NOTHING
    """What the requester owes for it now."""
    entry: Digest | None = None
    ended: UnixMs | None = None


@dataclass(frozen=True)
class Leased(Event):
    """It was accepted, and the requester's exposure includes it."""

    kind = "leased"

    requester: NodeId
    job: JobId
    attempt: int
    model: ModelDigest
    price: MicroCredits
    start_fee: MicroCredits
    deadline_ms: int
    accept: Digest

    @classmethod
    def of(cls, at: UnixMs, lease: Signed[LeaseObject], accept: Digest) -> "Leased":
        """From the requester's order."""
        order = lease.object
        return cls(
            at, order.iss, order.job, order.att, ModelDigest(order.model), order.price, order.start_fee, order.deadline_ms, accept
        )  # fmt: skip


@dataclass(frozen=True)
class Queued(Event):
    """The input is here, and is what the lease commits to."""

    kind = "queued"

    input: Digest


@dataclass(frozen=True)
class Delivered(Event):
    """Run, proved, verified by ourselves, signed: the price is owed."""

    kind = "delivered"

    result: Digest
    output: Digest
    notice: Digest
    proof: Digest
    run_ms: int
    prove_ms: int


@dataclass(frozen=True)
class Settled(Event):
    """The requester's entry is taken."""

    kind = "settled"

    entry: Digest


@dataclass(frozen=True)
class Expired(Event):
    """Input or result did not come in time; nothing is owed."""

    kind = "expired"

    reason: str


@dataclass(frozen=True)
class Cancelled(Event):
    """The requester does not want it any more; after the start it owes the fee."""

    kind = "cancelled"

    owed: MicroCredits


@dataclass(frozen=True)
class Failed(Event):
    """Our machine could not do it; nothing is owed."""

    kind = "failed"

    reason: str


EVENTS: Final[dict[str, type[Event]]] = {one.kind: one for one in (Leased, Queued, Delivered, Settled, Expired, Cancelled, Failed)}

_AFTER: Final[dict[type[Event], tuple[State, ...]]] = {
    Queued: (State.LEASED,),
    Delivered: (State.QUEUED, State.EXECUTING, State.PROVING),
    Settled: (State.UNPAID, State.CANCELLED),
    Expired: (State.LEASED, State.QUEUED, State.EXECUTING, State.PROVING),
    Cancelled: (State.LEASED, State.QUEUED, State.EXECUTING, State.PROVING),
    Failed: (State.LEASED, State.QUEUED, State.EXECUTING, State.PROVING),
}


def begin(lease: Digest, event: Leased) -> LeaseState:
    """The state after the first event."""
    return LeaseState(
        id=lease,
        at=event.at,
        requester=event.requester,
        job=event.job,
        attempt=event.attempt,
        model=event.model,
        price=event.price,
        start_fee=event.start_fee,
        deadline_ms=event.deadline_ms,
        accept=event.accept,
    )


def apply(event: Event, lease: LeaseState) -> LeaseState:
    """The state after one more event. Raises `LedgerError` if the event cannot follow."""
    if lease.state not in _AFTER.get(type(event), ()):
        raise LedgerError("the events of a lease contradict each other", f"{event.kind!r} cannot follow in state {lease.state.value!r}")
    match event:
        case Queued():
            return replace(lease, state=State.QUEUED, input=event.input)
        case Delivered():
            return replace(
                lease,
                state=State.UNPAID,
                result=event.result,
                output=event.output,
                notice=event.notice,
                proof=event.proof,
                run_ms=event.run_ms,
                prove_ms=event.prove_ms,
                delivered=event.at,
                owed=lease.price,
            )
        case Settled():
            return replace(lease, state=State.SETTLED if lease.state is State.UNPAID else lease.state, entry=event.entry, ended=event.at)
        case Expired():
            return replace(lease, state=State.EXPIRED, reason=event.reason, ended=event.at)
        case Cancelled():
            return replace(lease, state=State.CANCELLED, reason="cancelled by the requester", owed=event.owed, ended=event.at)
        case Failed():
            return replace(lease, state=State.FAILED, reason=event.reason, ended=event.at)
        case _:
            raise LedgerError("the events of a lease contradict each other", f"{event.kind!r} is not known")


def rebuild(lease: Digest, events: Iterable[Event]) -> LeaseState:
    """The state after all its events."""
    stream = iter(events)
    first = next(stream)
    if not isinstance(first, Leased):
        raise LedgerError("the events of a lease contradict each other", f"the first is {first.kind!r}")
    state = begin(lease, first)
    for event in stream:
        state = apply(event, state)
    return state
