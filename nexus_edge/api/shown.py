"""Jobs, leases, peers and books as the admin API shows them: pure functions from what the parts hold."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from nexus_edge.api import words
from nexus_edge.api.models import (
    BookView,
    CertificateView,
    EntryView,
    FleetView,
    IntegrityView,
    JobState,
    JobView,
    PeerRef,
    PeersSummary,
    PeerView,
    ProofView,
    StepView,
)
from nexus_edge.compute import Device
from nexus_edge.discovery import Peer
from nexus_edge.discovery import State as Reach
from nexus_edge.identity import format_node_id, short_id
from nexus_edge.ledger import Book, Group, Line, Member
from nexus_edge.ledger.integrity import Report
from nexus_edge.market.jobs import Job, Outcome, Phase
from nexus_edge.market.leases import LeaseState, State
from nexus_edge.market.membership import Own
from nexus_edge.market.ordering import Live
from nexus_edge.market.work import Work
from nexus_edge.types import Bytes, MicroCredits, NodeId, UnixMs
from nexus_edge.wire.limits import SKEW_SHOWN_MS

SHORTEST: Final = 4
NAME: Final = 12
"""Cells that a name may take."""

_OF_PHASE: Final[Mapping[Phase, JobState]] = {
    Phase.NEW: "waiting",
    Phase.OFFERED: "waiting",
    Phase.ACCEPTED: "running",
    Phase.DELIVERED: "running",
    Phase.VERIFIED: "verified",
    Phase.PAYING: "verified",
    Phase.SETTLED: "verified",
    Phase.DISPUTED: "verified",
    Phase.FAILED: "failed",
    Phase.CANCELLING: "cancelled",
    Phase.CANCELLED: "cancelled",
}
ANSWERED: Final = (Phase.VERIFIED, Phase.PAYING, Phase.SETTLED, Phase.DISPUTED)
_OF_STATE: Final[Mapping[State, JobState]] = {
    State.LEASED: "waiting",
    State.QUEUED: "waiting",
    State.EXECUTING: "running",
    State.PROVING: "running",
    State.UNPAID: "proved",
    State.SETTLED: "verified",
    State.EXPIRED: "failed",
    State.CANCELLED: "cancelled",
    State.FAILED: "failed",
}


def moment(at: UnixMs) -> datetime:
    """For records and people."""
    return datetime.fromtimestamp(at / 1000, UTC)


def abbreviated(ids: Iterable[str], prefix: str) -> dict[str, str]:
    """Each id by its shortest beginning that no other has, of four characters at least."""
    ordered = sorted(set(ids))
    short = {}
    for at, name in enumerate(ordered):
        around = [other for other in (ordered[at - 1] if at else "", ordered[at + 1] if at + 1 < len(ordered) else "") if other]
        length = SHORTEST
        while length < len(name) and any(other[:length] == name[:length] for other in around):
            length += 1
        short[name] = f"{prefix}-{name[:length]}"
    return short


class Names:
    """A peer proposes its name; it is granted while no other peer here has it, so that one name is one peer."""

    def __init__(self, peers: Sequence[Peer], own: str) -> None:
        proposed = {peer.id: _plain(peer.record.object.name) for peer in peers if peer.record is not None}
        taken = Counter([own, *proposed.values()])
        self._names = {peer: name for peer, name in proposed.items() if name and taken[name] == 1}

    def of(self, peer: NodeId) -> PeerRef:
        """Which peer."""
        return PeerRef(id=format_node_id(peer), short_id=short_id(peer), name=self._names.get(peer, ""))


def job_of_ours(job: Job, live: Live | None, short: str, model: str, names: Names, now: float) -> JobView:
    """A job that a peer does for us, at `now` of the monotonic clock."""
    attempt = job.attempts[-1] if job.attempts and (job.attempt.outcome is not Outcome.DECLINED or job.phase.is_final) else None
    status = live.status if live is not None else None
    state: JobState = _OF_PHASE[job.phase]
    if state == "failed" and any(one.outcome is Outcome.INVALID for one in job.attempts):
        state = "refused"
    if job.phase is Phase.ACCEPTED and status is not None and status.state in ("leased", "queued"):
        state = "waiting"
    waits = next((one.reason for one in reversed(job.attempts) if one.reason), "") if job.phase is Phase.NEW else ""
    if job.phase is Phase.ACCEPTED and live is not None and live.unanswered:
        waits = f"the worker does not answer: {live.unanswered}"
    return JobView(
        id=job.id.hex(),
        short_id=short,
        asked_at=moment(job.at),
        model=model,
        digest=job.model.hex(),
        direction="by",
        peer=None if attempt is None else names.of(attempt.worker),
        state=state,
        phase=_phase(job, status.phase if status is not None else ""),
        fraction=status.done_ppm / 1_000_000 if status is not None and status.phase and job.phase is Phase.ACCEPTED else None,
        eta_ms=None if live is None or job.phase is not Phase.ACCEPTED else live.left_ms(now),
        price_ucr=None if attempt is None else job.paid if job.phase in (Phase.FAILED, Phase.CANCELLED) else attempt.price,
        run_ms=None if attempt is None or attempt.result is None else float(attempt.run_ms),
        prove_ms=None if attempt is None or attempt.proof is None else float(attempt.prove_ms),
        verify_ms=float(job.verify_ms) if job.phase in ANSWERED else None,
        proof=None if attempt is None or attempt.proof is None else attempt.proof.hex(),
        entry=None if job.entry is None else job.entry.hex(),
        settled=job.phase is Phase.SETTLED,
        answered=job.phase in ANSWERED,
        reason=job.reason or waits,
        reasons=job.rejected or tuple(f"{short_id(one.worker)} {one.why.value}: {one.text}" for one in (live.rejected if live else ())),
        timeline=()
        if status is None
        else tuple(StepView(phase=event.detail or event.kind, state="done", ms=event.ms) for event in status.events),
        ended_at=None if job.ended is None else moment(job.ended),
    )


def job_for_peer(lease: LeaseState, work: Work | None, short: str, model: str, names: Names, left_ms: int | None) -> JobView:
    """A job that we do for a peer."""
    state = _OF_STATE[lease.state]
    phase = work.phase if work is not None and lease.state.is_open else ""
    return JobView(
        id=lease.job.hex(),
        short_id=short,
        asked_at=moment(lease.at),
        model=model,
        digest=lease.model.hex(),
        direction="for",
        peer=names.of(lease.requester),
        state="running" if phase else state,
        phase=phase,
        fraction=work.done_ppm / 1_000_000 if work is not None and phase else None,
        eta_ms=left_ms,
        price_ucr=lease.price if lease.state.is_open or lease.result is not None else lease.owed,
        run_ms=float(lease.run_ms) if lease.result is not None else None,
        prove_ms=float(lease.prove_ms) if lease.result is not None else None,
        proof=None if lease.proof is None else lease.proof.hex(),
        entry=None if lease.entry is None else lease.entry.hex(),
        settled=lease.state is State.SETTLED,
        reason=lease.reason,
        timeline=() if work is None else tuple(StepView(phase=step.detail or step.kind, state="done", ms=step.ms) for step in work.steps),
        ended_at=None if lease.ended is None else moment(lease.ended),
    )


def proof_of(
    job: JobView, short: Mapping[str, str], sizes: Mapping[str, int], bits: float | None, rerun_ms: float | None
) -> ProofView | None:  # fmt: skip
    """The proof of a job, as far as there is one. `rerun_ms`: of a run here; where that is not known it is what the worker said of its own."""
    if job.proof is None:
        return None
    state: Literal["proved", "verified", "refused"] = "proved"
    if job.state in ("verified", "refused"):
        state = "verified" if job.state == "verified" else "refused"
    size = sizes.get(job.proof)
    run_ms = job.run_ms if rerun_ms is None else rerun_ms
    return ProofView(
        id=job.proof,
        short_id=short[job.proof],
        job=job.short_id,
        model=job.model,
        digest=job.digest,
        direction=job.direction,
        peer=job.peer,
        state=state,
        at=job.ended_at or job.asked_at,
        prove_ms=job.prove_ms,
        verify_ms=job.verify_ms,
        of_rerun=job.verify_ms / run_ms if job.verify_ms and run_ms else None,
        bytes=None if size is None else Bytes(size),
        bits=bits,
        reason=job.reason if state == "refused" else "",
    )


def peer_view(peer: Peer, names: Names, book: Book | None, member: Member | None, jobs: Sequence[Job], *, excluded: bool) -> PeerView:
    """A peer."""
    attempts = [attempt for job in jobs for attempt in job.attempts if attempt.worker == peer.id]
    ref = names.of(peer.id)
    return PeerView(
        id=ref.id,
        short_id=ref.short_id,
        name=ref.name,
        state="excluded" if excluded else peer.state.value,
        has="" if peer.record is None else peer.record.object.sw,
        found_by=tuple(sorted(source.value for source in peer.sources | {peer.found_by})),
        addresses=tuple(str(address.endpoint) for address in peer.addresses),
        rtt_ms=peer.rtt_ms,
        skew_ms=peer.skew_ms,
        reach=_reach(peer),
        verified=sum(attempt.outcome is Outcome.VERIFIED for attempt in attempts),
        given=sum(attempt.proof is not None for attempt in attempts),
        balance_ucr=MicroCredits(0 if book is None else book.owed),
        limit_ucr=member.group.bound if member is not None else MicroCredits(0 if book is None else book.line),
        fleet="" if member is None else member.group.label,
        fleet_until=None if member is None else moment(member.until),
        last_seen=None if peer.last_answer is None else moment(peer.last_answer),
        one_way=peer.one_way,
        problem=peer.problem,
    )


def troubles(peer: PeerView) -> Iterator[str]:
    """What its owner or ours should look at, of a peer that answers."""
    name = f"{peer.name} {peer.short_id}".strip()
    if peer.one_way:
        yield f"{name} answers us but cannot reach us ({peer.one_way}). It can work for us, we cannot work for it."
    if peer.skew_ms is not None and abs(peer.skew_ms) > SKEW_SHOWN_MS:
        yield f"the clock of {name} is {words.time(abs(peer.skew_ms))} {'ahead of' if peer.skew_ms > 0 else 'behind'} ours."


def peers_summary(peers: Sequence[PeerView]) -> PeersSummary:
    """Peers, counted."""
    online = [peer for peer in peers if peer.state in ("up", "suspect")]
    return PeersSummary(
        online=len(online),
        both_ways=sum(peer.reach == "both" for peer in online),
        one_way=sum(peer.reach in ("in", "out") for peer in online),
        excluded=sum(peer.state == "excluded" for peer in peers),
    )


def entry_view(line: Line, own: NodeId, names: Names) -> EntryView:
    """An entry as this node sees it."""
    is_ours = line.debtor == own
    return EntryView(
        n=line.n,
        id=line.id.hex(),
        at=moment(line.at),
        kind=line.kind,
        peer=names.of(line.creditor if is_ours else line.debtor),
        ref=line.ref.hex(),
        amount_ucr=MicroCredits(-line.amount if is_ours else line.amount),
        total_ucr=line.total,
        signed="both" if line.acknowledged else "ours",
    )


def book_view(book: Book, names: Names) -> BookView:
    """How we stand with one peer."""
    return BookView(
        peer=names.of(book.peer),
        balance_ucr=MicroCredits(book.owed),
        limit_ucr=book.line,
        fleet="" if book.member is None else book.member.group.label,
        fleet_until=None if book.member is None else moment(book.member.until),
        granted_ucr=book.granted,
        reserved_in_ucr=book.reserved_in,
        reserved_out_ucr=book.reserved_out,
        at_stake_ucr=book.locked,
        disputed=book.written_off > 0,
    )


def fleet_view(group: Group, members: Iterable[Member], books: Iterable[Book]) -> FleetView:
    """A fleet that we serve."""
    return FleetView(
        key=format_node_id(group.key),
        name=group.label,
        members=sum(member.group.key == group.key for member in members),
        line_ucr=group.line,
        exposure_ucr=MicroCredits(sum(book.exposure for book in books if book.member is not None and book.member.group.key == group.key)),
    )


def certificate_view(own: Own, problem: str, groups: Iterable[Group]) -> CertificateView:
    """A certificate of ours."""
    if own.certificate is None:
        return CertificateView(file=str(own.file), problem=problem)
    what = own.certificate.object
    name = next((group.label for group in groups if group.key == what.iss), short_id(what.iss))
    return CertificateView(file=str(own.file), key=format_node_id(what.iss), name=name, until=moment(what.exp), problem=problem)


def integrity_view(report: Report, at: UnixMs) -> IntegrityView:
    """What a check found."""
    return IntegrityView(sound=not report.faults, first=report.first, last=report.last, checked_at=moment(at), faults=report.faults)


def device_name(device: Device) -> str:
    """As people call it."""
    return f"{device.name}, {device.cores} cores"


def _phase(job: Job, working_on: str) -> str:
    match job.phase:
        case Phase.ACCEPTED:
            return working_on
        case Phase.DELIVERED:
            return "verify"
        case Phase.NEW | Phase.OFFERED:
            return "quote" if job.phase is Phase.NEW else "lease"
        case _:
            return ""


def _reach(peer: Peer) -> Literal["both", "out", "in", "none"]:
    if peer.state not in (Reach.UP, Reach.SUSPECT):
        return "in" if peer.mutual else "none"
    return "both" if peer.mutual else "out"


def _plain(name: str) -> str:
    return "".join(character for character in name if character.isprintable() and character not in "[]")[:NAME].strip()
