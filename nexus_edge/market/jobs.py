"""A requester's job: frozen state, events, and the pure `apply` that rebuilds the one from the others.

Events are written, and on the disk, before what they permit is sent. `docs/mesh-protocol.md` has the table of states.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final

from nexus_edge.errors import LedgerError
from nexus_edge.market.events import Event
from nexus_edge.types import NOTHING, Digest, JobId, MicroCredits, ModelDigest, NodeId, UnixMs
from nexus_edge.wire.limits import INPUT_WITH_LEASE
from nexus_edge.wire.objects import Mode, OutputMode

ATTEMPTS: Final = 3
"""Workers that may accept one job, one after the other."""
OFFERS: Final = 24
"""Leases that may be offered for one job: some are refused because something changed since the quote."""


PROOFS_OF_AN_INPUT: Final = {"zk-100": 3, "zk-128": 2}
"""Proofs that may open one commitment to an input, if that has the fewest rows: each worker that is given the input may make one. Plain sets hide nothing."""


class Phase(StrEnum):
    """Where a job stands. `deferred` and `sampled` jobs will add owing-proof, audited and frozen between delivered and verified."""

    NEW = "new"
    OFFERED = "offered"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    VERIFIED = "verified"
    PAYING = "paying"
    SETTLED = "settled"
    DISPUTED = "disputed"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens."""
        return self in (Phase.SETTLED, Phase.DISPUTED, Phase.FAILED, Phase.CANCELLED)


class Outcome(StrEnum):
    """How an attempt ended."""

    OPEN = "open"
    DECLINED = "declined"
    LOST = "lost"
    FAILED = "worker-failed"
    INVALID = "invalid-proof"
    VERIFIED = "verified"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Attempt:
    """One lease with one worker."""

    number: int
    worker: NodeId
    lease: Digest
    price: MicroCredits
    start_fee: MicroCredits
    accepted: bool = False
    outcome: Outcome = Outcome.OPEN
    reason: str = ""
    result: Digest | None = None
    output: Digest | None = None
    notice: Digest | None = None
    proof: Digest | None = None
    run_ms: int = 0
    """As the worker says."""
    prove_ms: int = 0
    seed: bytes | None = None
    """Of the output's commitment; None for an output in clear."""


@dataclass(frozen=True)
class Job:
    """A job as its events tell it."""

    id: JobId
    at: UnixMs
    model: ModelDigest
    sem: str
    params: str
    mode: Mode
    outm: OutputMode
    inc: Digest
    input: Digest
    """The blob of the `InputUpload`: data and seeds."""
    input_bytes: int
    max_price: MicroCredits
    deadline_ms: int
    worker: NodeId | None
    """The only worker that may have it, if the user said so."""
    former_inputs: tuple[Digest, ...] = ()
    """The same data with other seeds, whose commitments were used up."""
    committed_at: int = 0
    """How many attempts there had been when the input was committed to."""
    phase: Phase = Phase.NEW
    attempts: tuple[Attempt, ...] = ()
    rejected: tuple[str, ...] = ()
    """Why the others did not get the last lease, one line each."""
    reason: str = ""
    entry: Digest | None = None
    paid: MicroCredits = NOTHING
    verify_ms: int = 0
    ended: UnixMs | None = None

    @property
    def attempt(self) -> Attempt:
        """The last attempt."""
        return self.attempts[-1]

    @property
    def sends_along(self) -> bool:
        """Whether the input goes along with the first offer."""
        return self.input_bytes <= INPUT_WITH_LEASE

    @property
    def handed(self) -> int:
        """How many workers may open the commitment: those that accepted since it was made, and the first if the input went along."""
        attempts = self.attempts[self.committed_at :]
        return sum(attempt.accepted or (attempt.number == 0 and self.sends_along) for attempt in attempts)

    @property
    def is_handed_out(self) -> bool:
        """Whether nobody else may open the commitment. A plain one hides nothing, and may be opened for ever."""
        proofs = PROOFS_OF_AN_INPUT.get(self.params)
        return proofs is not None and self.handed >= proofs

    @property
    def accepted(self) -> int:
        """How many workers accepted it so far."""
        return sum(attempt.accepted for attempt in self.attempts)


@dataclass(frozen=True)
class Created(Event):
    """The user wants it."""

    kind = "created"

    model: ModelDigest
    sem: str
    params: str
    mode: int
    outm: int
    inc: Digest
    input: Digest
    input_bytes: int
    max_price: MicroCredits
    deadline_ms: int
    worker: NodeId | None


@dataclass(frozen=True)
class Offered(Event):
    """A lease was signed and its price reserved."""

    kind = "offered"

    number: int
    worker: NodeId
    lease: Digest
    price: MicroCredits
    start_fee: MicroCredits
    rejected: tuple[str, ...]


@dataclass(frozen=True)
class Recommitted(Event):
    """As many workers may have opened the commitment as it hides the input from: the next ones get another commitment to the same input."""

    kind = "recommitted"

    inc: Digest
    input: Digest


@dataclass(frozen=True)
class Declined(Event):
    """The worker does not want the lease, or never got it: nothing is reserved any more."""

    kind = "declined"

    reason: str


@dataclass(frozen=True)
class Accepted(Event):
    """The worker signed."""

    kind = "accepted"


@dataclass(frozen=True)
class AttemptFailed(Event):
    """The worker is silent, late, failed, or sent something false; `outcome` says which. Nothing is reserved any more."""

    kind = "attempt-failed"

    outcome: str
    reason: str


@dataclass(frozen=True)
class Delivered(Event):
    """Result and output are here and kept, and what proves them."""

    kind = "delivered"

    result: Digest
    output: Digest
    notice: Digest
    proof: Digest
    run_ms: int
    prove_ms: int
    seed: bytes | None


@dataclass(frozen=True)
class Verified(Event):
    """The proof holds."""

    kind = "verified"

    verify_ms: int
    claimed_ms: int
    """What the worker's quote said that running and proving would take."""
    took_ms: int
    """How long it took as seen from here; 0 if that was not seen."""


@dataclass(frozen=True)
class Paying(Event):
    """The entry is signed: this is the payment, whether or not the worker has it yet."""

    kind = "paying"

    entry: Digest
    amount: MicroCredits


@dataclass(frozen=True)
class Settled(Event):
    """The worker has acknowledged the entry."""

    kind = "settled"


@dataclass(frozen=True)
class Disputed(Event):
    """The worker says that nothing is owed, or not this: it is not signed again, and shown."""

    kind = "disputed"

    reason: str


@dataclass(frozen=True)
class CancelWanted(Event):
    """The user does not want it any more."""

    kind = "cancel-wanted"


@dataclass(frozen=True)
class CancelTooLate(Event):
    """The worker had delivered before it heard: the answer is taken, and paid."""

    kind = "cancel-too-late"


@dataclass(frozen=True)
class Cancelled(Event):
    """It has stopped, and nothing is owed but what an entry says."""

    kind = "cancelled"


@dataclass(frozen=True)
class Failed(Event):
    """It ended without an answer."""

    kind = "failed"

    reason: str


EVENTS: Final[dict[str, type[Event]]] = {
    one.kind: one
    for one in (
        Created,
        Offered,
        Recommitted,
        Declined,
        Accepted,
        AttemptFailed,
        Delivered,
        Verified,
        Paying,
        Settled,
        Disputed,
        CancelWanted,
        CancelTooLate,
        Cancelled,
        Failed,
    )
}

_AFTER: Final[dict[type[Event], tuple[Phase, ...]]] = {
    Offered: (Phase.NEW,),
    Recommitted: (Phase.NEW,),
    Declined: (Phase.OFFERED,),
    Accepted: (Phase.OFFERED,),
    AttemptFailed: (Phase.OFFERED, Phase.ACCEPTED, Phase.DELIVERED),
    Delivered: (Phase.ACCEPTED,),
    Verified: (Phase.DELIVERED,),
    Paying: (Phase.VERIFIED, Phase.CANCELLING),
    Settled: (Phase.PAYING,),
    Disputed: (Phase.PAYING,),
    CancelWanted: (Phase.NEW, Phase.OFFERED, Phase.ACCEPTED),
    CancelTooLate: (Phase.CANCELLING,),
    Cancelled: (Phase.CANCELLING,),
    Failed: (Phase.NEW,),
}
"""The phases in which an event can happen. Anything else is a bug or a damaged ledger, and changes nothing."""


def begin(job: JobId, event: Created) -> Job:
    """The state after the first event."""
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    return Job(id=job, **{**values, "mode": Mode(event.mode), "outm": OutputMode(event.outm)})


def apply(event: Event, job: Job) -> Job:
    """The state after one more event. Raises `LedgerError` if the event cannot follow."""
    is_second_payment = isinstance(event, Paying) and job.entry is not None
    is_about_nothing = isinstance(event, Paying | CancelTooLate) and not job.attempts
    if job.phase not in _AFTER.get(type(event), ()) or is_second_payment or is_about_nothing:
        raise LedgerError("the events of a job contradict each other", f"{event.kind!r} cannot follow in phase {job.phase.value!r}")
    match event:
        case Offered():
            attempt = Attempt(event.number, event.worker, event.lease, event.price, event.start_fee)
            return replace(job, phase=Phase.OFFERED, attempts=(*job.attempts, attempt), rejected=event.rejected)
        case Recommitted():
            former = (*job.former_inputs, job.input)
            return replace(job, inc=event.inc, input=event.input, former_inputs=former, committed_at=len(job.attempts))
        case Declined():
            return replace(_attempt(job, outcome=Outcome.DECLINED, reason=event.reason), phase=Phase.NEW)
        case Accepted():
            return replace(_attempt(job, accepted=True), phase=Phase.ACCEPTED)
        case AttemptFailed():
            return replace(_attempt(job, outcome=Outcome(event.outcome), reason=event.reason), phase=Phase.NEW)
        case Delivered():
            kept = {"result": event.result, "output": event.output, "notice": event.notice, "proof": event.proof}
            more = {"run_ms": event.run_ms, "prove_ms": event.prove_ms, "seed": event.seed}
            return replace(_attempt(job, **kept, **more), phase=Phase.DELIVERED)
        case Verified():
            return replace(_attempt(job, outcome=Outcome.VERIFIED), phase=Phase.VERIFIED, verify_ms=event.verify_ms)
        case Paying():
            # The fee of a cancelled job: the job stays cancelled whatever becomes of the entry, which the payer posts.
            phase = Phase.PAYING if job.phase is Phase.VERIFIED else job.phase
            return replace(job, phase=phase, entry=event.entry, paid=event.amount)
        case Settled():
            return replace(job, phase=Phase.SETTLED, ended=event.at)
        case Disputed():
            return replace(job, phase=Phase.DISPUTED, ended=event.at, reason=event.reason)
        case CancelWanted():
            return replace(job, phase=Phase.CANCELLING)
        case CancelTooLate():
            return replace(job, phase=Phase.ACCEPTED)
        case Cancelled():
            return replace(job, phase=Phase.CANCELLED, ended=event.at, reason="cancelled")
        case Failed():
            return replace(job, phase=Phase.FAILED, ended=event.at, reason=event.reason)
        case _:
            raise LedgerError("the events of a job contradict each other", f"{event.kind!r} is not known")


def rebuild(job: JobId, events: Iterable[Event]) -> Job:
    """The state after all its events."""
    stream = iter(events)
    first = next(stream)
    if not isinstance(first, Created):
        raise LedgerError("the events of a job contradict each other", f"the first is {first.kind!r}")
    state = begin(job, first)
    for event in stream:
        state = apply(event, state)
    return state


def _attempt(job: Job, **changes: Any) -> Job:
    return replace(job, attempts=(*job.attempts[:-1], replace(job.attempt, **changes)))
