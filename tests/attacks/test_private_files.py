"""Hostile evidence about a private model: registrations, links and keys changed, cut and extended. None is accepted, and none is recorded."""

from pathlib import Path

import pytest

from nexus_edge.data import demo_digits, demo_model
from nexus_edge.proofs import (
    EvidenceRecord,
    Link,
    Model,
    Proof,
    ProofRejected,
    ProvingKey,
    Registration,
    RejectReason,
    VerifyingKey,
    commit_model,
    link,
    prove,
    register,
    verify,
)
from nexus_edge.types import PrivateForm
from tests.attacks.test_files import cuts, flips, read, unnamed

Case = tuple[ProvingKey, ProvingKey, Registration, Link, Proof]


@pytest.fixture(scope="module")
def case() -> Case:
    key = commit_model(Model.from_tflite(demo_model(), "digits", private=PrivateForm()))
    fresh = key.committed_again()
    return key, fresh, register(key), link(key, [fresh]), prove(fresh, [demo_digits()[0][0]]).proof


def public(key: ProvingKey) -> VerifyingKey:
    return VerifyingKey.from_bytes(key.verifying_key.to_bytes())


def test_every_changed_registration_is_refused(case: Case, tmp_path: Path) -> None:
    key, record = public(case[0]), EvidenceRecord(tmp_path / "state")
    data = case[2].to_bytes()
    for changed in [*flips(data), *cuts(data), case[3].to_bytes(), case[4].to_bytes()]:
        with pytest.raises(ProofRejected):
            record.verify_registration(key, Registration.from_bytes(changed))
    assert not key.native.registered
    assert not record.folder.exists()


def test_every_changed_link_is_refused(case: Case, tmp_path: Path) -> None:
    key, record = public(case[1]), EvidenceRecord(tmp_path / "state")
    data = case[3].to_bytes()
    for changed in [*flips(data), *cuts(data), case[2].to_bytes()]:
        with pytest.raises(ProofRejected):
            record.verify_link(key, Link.from_bytes(changed))
    assert not key.native.linked
    assert not record.folder.exists()


def test_a_registration_is_no_link_nor_a_proof(case: Case) -> None:
    key, fresh, registration, linked, proof = case
    with pytest.raises(ProofRejected):
        EvidenceRecord(Path("/nonexistent")).verify_link(public(fresh), Link(linked.digest, linked.commitments, registration.body))
    with pytest.raises(ProofRejected):
        EvidenceRecord(Path("/nonexistent")).verify_registration(public(key), Registration(linked.digest, linked.body))
    known = public(fresh)
    known.native.admit_registration(known.digest)
    assert known.commitment is not None
    known.native.admit_link(known.digest, known.commitment)
    verify(known, proof)
    for body in (registration.body, linked.body):
        with pytest.raises(ProofRejected):
            verify(known, Proof(proof.statement, body))


def test_a_record_admits_no_other_key(case: Case, tmp_path: Path) -> None:
    """The digest names the registered commitment only: a key with another fresh one has the same digest, and needs its own link."""
    key, fresh, registration, linked, proof = case
    record = EvidenceRecord(tmp_path / "state")
    record.verify_registration(public(key), registration)
    record.verify_link(public(fresh), linked)
    mine = public(fresh)
    record.admit(mine)
    verify(mine, proof)
    same_digest = 0
    data = mine.to_bytes()
    for changed in flips(data):
        other, reason = read(VerifyingKey.from_bytes, changed)
        if other is None:
            assert reason is RejectReason.MALFORMED
            continue
        record.admit(other)
        if unnamed(other) == unnamed(mine):
            verify(other, proof)
            continue
        with pytest.raises(ProofRejected) as caught:
            verify(other, proof)
        if other.digest == mine.digest:
            same_digest += 1
            assert (other.native.registered, other.native.linked) == (True, False)
            assert caught.value.reason is RejectReason.UNLINKED
        else:
            assert not other.native.registered
    assert same_digest > 0
