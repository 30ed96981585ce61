"""Events and states: what may follow what, and that a state is what its events make it."""

from dataclasses import fields, replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey
from nexus_edge.market import jobs, leases
from nexus_edge.market.events import event_body, event_from
from nexus_edge.market.jobs import PROOFS_OF_AN_INPUT, Outcome, Phase
from nexus_edge.market.leases import State
from nexus_edge.proofs import Model, commit_model
from nexus_edge.proofs.wired import commit_inputs
from nexus_edge.types import Digest, JobId
from nexus_edge.wire.cbor import decode, encode

JOB = JobId(bytes(16))
LEASE = Digest(bytes(32))
WORKER = NodeKey.from_seed(b"w" * 32).id


def made(kind: type[Any], **given: Any) -> Any:
    """An event with plain values where none are given."""
    plain: dict[str, Any] = {
        "at": 5, "mode": 1, "outm": 1, "number": 0, "worker": WORKER, "rejected": ("a", "b"), "reason": "why", "outcome": "lost", "sem": "tflm",
        "params": "zk-100", "requester": WORKER, "job": JOB, "attempt": 0, "price": 7, "start_fee": 1, "owed": 1, "amount": 7,
    }  # fmt: skip
    values = {}
    for field in fields(kind):
        default = 3 if field.type in (int, "int") or "ms" in field.name or field.name in ("input_bytes", "max_price") else bytes(32)
        values[field.name] = given.get(field.name, plain.get(field.name, default))
    return kind(**values)


def follow(*kinds: type[Any]) -> jobs.Job:
    return jobs.rebuild(JOB, [made(kind) for kind in kinds])


def test_the_straight_way() -> None:
    way = [jobs.Created, jobs.Offered, jobs.Accepted, jobs.Delivered, jobs.Verified, jobs.Paying, jobs.Settled]
    phases = [Phase.NEW, Phase.OFFERED, Phase.ACCEPTED, Phase.DELIVERED, Phase.VERIFIED, Phase.PAYING, Phase.SETTLED]
    for length, phase in enumerate(phases, 1):
        assert follow(*way[:length]).phase is phase
    done = follow(*way)
    assert (done.attempt.outcome, done.paid, done.ended, done.rejected) == (Outcome.VERIFIED, 7, 5, ("a", "b"))


def test_other_ways() -> None:
    offered, accepted = [jobs.Created, jobs.Offered], [jobs.Created, jobs.Offered, jobs.Accepted]
    assert follow(*offered, jobs.Declined).phase is Phase.NEW
    assert follow(*accepted, jobs.AttemptFailed).attempt.outcome is Outcome.LOST
    assert follow(*accepted, jobs.AttemptFailed, jobs.Failed).phase is Phase.FAILED
    assert follow(*accepted, jobs.AttemptFailed, *[jobs.Offered, jobs.Accepted]).accepted == 2
    assert follow(*accepted, jobs.CancelWanted, jobs.Paying, jobs.Cancelled).phase is Phase.CANCELLED
    assert follow(*accepted, jobs.CancelWanted, jobs.CancelTooLate, jobs.Delivered).phase is Phase.DELIVERED
    afresh = jobs.apply(made(jobs.Recommitted, inc=Digest(b"c" * 32), input=Digest(b"i" * 32)), follow(*offered, jobs.Declined))
    assert (afresh.phase, afresh.inc, afresh.input, afresh.committed_at) == (Phase.NEW, b"c" * 32, b"i" * 32, 1)
    assert follow(jobs.Created, jobs.CancelWanted, jobs.Cancelled).phase is Phase.CANCELLED


@given(st.lists(st.sampled_from(sorted(jobs.EVENTS.values(), key=lambda kind: kind.kind)), max_size=12))
def test_any_events_make_a_state_or_are_refused(kinds: list[type[Any]]) -> None:
    job = jobs.begin(JOB, made(jobs.Created))
    paid = 0
    for kind in kinds:
        try:
            after = jobs.apply(made(kind), job)
        except LedgerError:
            continue
        assert not job.phase.is_final, "nothing follows an end"
        if kind is jobs.Paying:
            paid += 1
        job = after
    assert paid <= 1
    assert job.phase is not Phase.SETTLED or paid == 1


@given(st.lists(st.sampled_from(sorted(leases.EVENTS.values(), key=lambda kind: kind.kind)), max_size=12))
def test_a_lease_is_owed_for_only_once_it_is_delivered_or_begun(kinds: list[type[Any]]) -> None:
    lease = leases.begin(LEASE, made(leases.Leased))
    for kind in kinds:
        try:
            lease = leases.apply(made(kind), lease)
        except LedgerError:
            continue
    assert (lease.state in (State.UNPAID, State.SETTLED)) == (lease.result is not None)
    assert not lease.owed or lease.state in (State.UNPAID, State.SETTLED, State.CANCELLED)
    assert (lease.ended is None) == (lease.state.is_open or lease.state is State.UNPAID)


@pytest.mark.parametrize("kinds", [jobs.EVENTS, leases.EVENTS])
def test_events_survive_the_ledger(kinds: dict[str, type[Any]]) -> None:
    for name, kind in kinds.items():
        event = made(kind)
        stored = decode(encode(event_body(event)), 10_000)
        assert isinstance(stored, dict)
        assert event_from(kinds, name, stored) == event


def test_what_the_ledger_cannot_mean() -> None:
    with pytest.raises(LedgerError, match="does not know"):
        event_from(jobs.EVENTS, "eaten", {})
    with pytest.raises(LedgerError, match="does not know"):
        event_from(jobs.EVENTS, "settled", {"at": 1, "more": 2})
    with pytest.raises(LedgerError, match="the first is"):
        jobs.rebuild(JOB, [made(jobs.Settled)])
    with pytest.raises(LedgerError, match="the first is"):
        leases.rebuild(LEASE, [made(leases.Failed)])
    with pytest.raises(LedgerError, match="cannot follow"):
        follow(jobs.Created, jobs.Settled)


@pytest.mark.parametrize("security", [100, 128])
def test_the_least_commitment_to_an_input_hides_it_in_so_many_proofs(security: Literal[100, 128]) -> None:
    model = Model.from_tflite(demo_model(), name="digits")
    held = commit_inputs(commit_model(model, security=security).verifying_key, [demo_digits()[0][0]])
    assert held.proofs_left == PROOFS_OF_AN_INPUT[f"zk-{security}"]


def test_who_has_the_input_is_counted() -> None:
    """The first worker has it with the offer, the others when they accept."""
    failed = jobs.Offered, jobs.Accepted, jobs.AttemptFailed
    assert follow(jobs.Created).handed == 0
    assert not follow(jobs.Created, *failed, *failed).is_handed_out
    job = follow(jobs.Created, *failed, *failed, *failed)
    assert (job.handed, job.is_handed_out) == (3, True)
    assert not replace(job, params="plain-100").is_handed_out
    assert replace(job, params="zk-128", attempts=job.attempts[:2]).is_handed_out
    later = replace(job, attempts=tuple(replace(one, number=one.number + 1, accepted=False) for one in job.attempts))
    assert later.handed == 0
    afresh = follow(jobs.Created, *failed, *failed, *failed, jobs.Recommitted, *failed)
    assert (afresh.handed, afresh.is_handed_out, afresh.accepted) == (1, False, 4)
    large = replace(job, input_bytes=1 << 24, attempts=tuple(replace(one, accepted=False) for one in job.attempts))
    assert large.handed == 0
