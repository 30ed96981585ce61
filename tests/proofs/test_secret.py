"""Secrets of private models, registrations and links as values and files: exact codecs, and counts that no crash loses."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.cli import ExitStatus
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import FileError, OpeningError, OpeningSpent, ProofRejected, RejectReason, UnsupportedModel
from nexus_edge.proofs import (
    EvidenceRecord,
    HeldSecret,
    Link,
    Model,
    ModelSecret,
    ModelSecretFile,
    ProvingKey,
    Registration,
    VerifyingKey,
    _native,
    commit_model,
    link,
    prove,
    register,
    reopen_model,
    verify,
    verify_link,
    verify_registration,
)
from nexus_edge.proofs.rows import RowAccount
from nexus_edge.proofs.secret import CompiledAs
from nexus_edge.types import ModelDigest, PrivateForm, WeightsCommitment
from tests.proofs.test_holding import CALLS_AT_MOST, Server, break_behind_the_rename, in_a_fork

LOG_DOMAIN, BUDGET, PER_PROOF = 14, 2048, 162
SEED = bytes(range(0xA0, 0xC0))


COMPILED = CompiledAs("m", "tflm", (14, 15))


def secret(compiled: CompiledAs = COMPILED, rows: tuple[int, ...] = (), *, linked: bool = False) -> ModelSecret:
    sizes = {"log_domain": LOG_DOMAIN, "budget": BUDGET, "per_proof": PER_PROOF}
    registered = WeightsCommitment(b"r" * 32)
    own = WeightsCommitment(b"o" * 32) if linked else registered
    account = RowAccount.fresh(**sizes).spent(rows)
    return ModelSecret(compiled, 100, ModelDigest(b"d" * 32), registered, own, _native.Seed.load(SEED), sizes, account)


@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    bounds=st.lists(st.integers(0, 255), max_size=20),
    rows=st.sets(st.integers(0, (1 << LOG_DOMAIN) - 1), max_size=60),
    linked=st.booleans(),
)
def test_bytes_are_exact(name: str, bounds: list[int], rows: set[int], linked: bool) -> None:
    one = secret(CompiledAs(name, "tflm", tuple(bounds)), tuple(rows), linked=linked)
    read = ModelSecret.from_bytes(one.to_bytes())
    assert read == one
    assert read.seed.expose() == SEED
    assert read.account.opened == len(rows)


@given(st.data())
def test_damaged_secrets_are_refused(data: st.DataObject) -> None:
    good = secret().to_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    flipped = bytearray(good)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for bad in (bytes(flipped), good[:at], good + b"\0"):
        with pytest.raises(OpeningError) as caught:
            ModelSecret.from_bytes(bad)
        assert SEED.hex() not in str(caught.value)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(OpeningError):
        ModelSecret.from_bytes(data)
    for kind in (Registration, Link):
        with pytest.raises(ProofRejected):
            kind.from_bytes(data)


@given(st.binary(min_size=32, max_size=32), st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=64), st.binary(max_size=99))
def test_proof_files_are_exact(digest: bytes, roots: list[bytes], body: bytes) -> None:
    one = Registration(ModelDigest(digest), body)
    assert Registration.from_bytes(one.to_bytes()) == one
    other = Link(ModelDigest(digest), tuple(map(WeightsCommitment, roots)), body)
    assert Link.from_bytes(other.to_bytes()) == other
    for data, kind in ((one.to_bytes(), Link), (other.to_bytes(), Registration)):
        with pytest.raises(ProofRejected):
            kind.from_bytes(data)


@pytest.mark.parametrize("roots", [b"", bytes(31), bytes(33)])
def test_links_of_no_commitments_are_refused(roots: bytes) -> None:
    from nexus_edge.proofs.registration import LINK

    with pytest.raises(ProofRejected) as caught:
        Link.from_bytes(LINK.encode(bytes(32), roots, b""))
    assert caught.value.reason is RejectReason.MALFORMED


def test_a_secret_is_not_shown() -> None:
    one = secret()
    for shown in (repr(one), str(one), repr(HeldSecret(one)), json.dumps(one.describe())):
        assert SEED.hex() not in shown
        assert repr(SEED)[2:-1] not in shown


def test_a_save_that_fails_behind_the_rename_leaves_one_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_behind_the_rename(monkeypatch)
    held = HeldSecret(secret())
    with pytest.raises(FileError, match="Input/output"):
        held.save(tmp_path / "secret")
    assert ModelSecretFile(tmp_path / "secret").exists()
    with pytest.raises(OpeningError, match="saved to a file"):
        held.spend(secret().commitment, [1])


def test_a_fork_has_no_second_account(tmp_path: Path) -> None:
    held = HeldSecret(secret())
    for use in (lambda: held.spend(secret().commitment, [1]), lambda: held.save(tmp_path / "secret")):
        assert "this is a fork" in in_a_fork(use)
    assert in_a_fork(held.read) == ""


# Rows that are kept for a link


def test_the_registered_commitment_keeps_rows_for_a_link() -> None:
    one = secret()
    nearly = one.spent(range(BUDGET - PER_PROOF))
    assert (nearly.proofs_left, nearly.account.left) == (0, PER_PROOF)
    with pytest.raises(OpeningSpent, match="kept for a link") as caught:
        nearly.spent([BUDGET])
    assert "model link" in caught.value.hint
    with pytest.raises(OpeningSpent):
        nearly.check_room()
    nearly.check_room(for_link=True)
    after = nearly.spent(range(BUDGET, BUDGET + PER_PROOF), for_link=True)
    assert after.account.left == 0
    with pytest.raises(OpeningSpent) as caught:
        after.check_room(for_link=True)
    assert "anew" in caught.value.hint


def test_a_linked_commitment_spends_everything() -> None:
    one = secret(linked=True)
    assert one.spent(range(BUDGET)).account.left == 0
    with pytest.raises(OpeningSpent):
        one.spent(range(BUDGET + 1))


def test_the_secret_of_another_commitment_pays_nothing() -> None:
    held = HeldSecret(secret())
    with pytest.raises(OpeningError, match="it is of commitment"):
        held.spend(WeightsCommitment(bytes(32)), [1])
    assert held.read().account.opened == 0


# The interface


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.from_tflite(demo_model(), "digits", private=PrivateForm())


def test_the_whole_way(model: Model, tmp_path: Path) -> None:
    image, _ = demo_digits()[0]
    key = commit_model(model)
    registration = register(key)
    file = key.save_secret(tmp_path / "model.secret")
    with pytest.raises(OpeningError, match="in a file already"):
        key.save_secret(tmp_path / "again")
    opened = file.read().account.opened
    assert 150 < opened <= PER_PROOF
    fresh = key.committed_again()
    linked = link(key, [fresh])
    assert file.read().account.opened > opened
    fresh.save_secret(tmp_path / "fresh.secret")

    reopened = [reopen_model(model, ModelSecretFile(tmp_path / name)) for name in ("model.secret", "fresh.secret")]
    for made, again in zip((key, fresh), reopened, strict=True):
        assert again.verifying_key.to_bytes() == made.verifying_key.to_bytes()
    proofs = [prove(one, [image]).proof for one in reopened]

    def public(made: ProvingKey) -> VerifyingKey:
        return VerifyingKey.from_bytes(made.verifying_key.to_bytes())

    first, second = public(key), public(fresh)
    with pytest.raises(ProofRejected) as caught:
        verify(first, proofs[0])
    assert caught.value.reason is RejectReason.UNREGISTERED
    verify_registration(first, registration)
    verify(first, proofs[0])
    verify_registration(second, registration)
    with pytest.raises(ProofRejected) as caught:
        verify(second, proofs[1])
    assert caught.value.reason is RejectReason.UNLINKED
    verify_link(second, linked)
    verify(second, proofs[1])
    for at, (one, other) in enumerate(((first, second), (second, first))):
        assert one.digest == other.digest
        with pytest.raises(ProofRejected):
            verify(one, proofs[1 - at])


def test_a_link_of_other_commitments(model: Model, tmp_path: Path) -> None:
    key = commit_model(model)
    one, other = key.committed_again(), key.committed_again()
    proof = link(key, [one])
    record = EvidenceRecord(tmp_path / "state")
    with pytest.raises(ProofRejected):
        record.verify_link(other.verifying_key, proof)
    assert other.verifying_key.commitment is not None
    with pytest.raises(ProofRejected):
        record.verify_link(other.verifying_key, replace(proof, commitments=(other.verifying_key.commitment,)))
    assert key.verifying_key.commitment is not None
    with pytest.raises(ProofRejected):
        record.verify_link(key.verifying_key, replace(proof, commitments=(key.verifying_key.commitment,)))
    with pytest.raises(ProofRejected):
        record.verify_registration(key.verifying_key, Registration(proof.digest, proof.body))
    assert not record.folder.exists()
    assert len(record.verify_link(key.verifying_key, proof)) == 1


def test_a_secret_belongs_to_its_weights(model: Model) -> None:
    key = commit_model(model)
    assert key.secret is not None
    known = key.secret.read()
    for wrong in (
        replace(known, seed=_native.Seed.fresh()),
        replace(known, security=128),
        replace(known, digest=ModelDigest(bytes(32))),
        replace(known, registered=WeightsCommitment(bytes(32))),
        replace(known, sizes={**known.sizes, "budget": known.sizes["budget"] + 1}),
    ):
        with pytest.raises(OpeningError, match="does not fit"):
            reopen_model(model, HeldSecret(wrong))
    with pytest.raises(OpeningError, match="not private"):
        commit_model(Model.from_tflite(demo_model())).save_secret("nowhere")


def test_public_models_have_nothing_to_register(model: Model) -> None:
    key = commit_model(model)
    public = commit_model(Model.from_tflite(demo_model())).verifying_key
    with pytest.raises(ProofRejected, match="no private weights"):
        verify_registration(public, Registration(public.digest, b""))
    assert key.secret is not None
    assert key.secret.read().account.opened == 0
    with pytest.raises(UnsupportedModel, match="plain proofs show functions of them"):
        commit_model(model, mode="plain")


def test_a_key_with_private_weights_inside_is_refused(model: Model) -> None:
    with pytest.raises(UnsupportedModel, match="shows them"):
        commit_model(model, "inside")


def test_every_changed_byte_is_refused(model: Model) -> None:
    key = commit_model(model)
    fresh = key.committed_again()
    registration, linked = register(key), link(key, [fresh])
    chance = np.random.default_rng(5)

    def changed(body: bytes) -> bytes:
        flipped = bytearray(body)
        flipped[chance.integers(len(body))] ^= int(chance.integers(1, 256))
        return bytes(flipped)

    public, second = (VerifyingKey.from_bytes(one.verifying_key.to_bytes()) for one in (key, fresh))
    for _ in range(60):
        with pytest.raises(ProofRejected):
            verify_registration(public, replace(registration, body=changed(registration.body)))
        with pytest.raises(ProofRejected):
            verify_link(second, replace(linked, body=changed(linked.body)))
    for cut in (0, 31, 32, 1000, -1):
        with pytest.raises(ProofRejected):
            verify_registration(public, replace(registration, body=registration.body[:cut]))
    assert not public.native.registered
    assert not second.native.linked


# Killed


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Path:
    place = tmp_path_factory.mktemp("owned")
    (place / "digits.tflite").write_bytes(demo_model())
    np.save(place / "x.npy", demo_digits()[0][0])
    key = commit_model(model)
    (place / "vk").write_bytes(key.verifying_key.to_bytes())
    key.save_secret(place / "model.secret")
    return place


def killed_everywhere(place: Path, words: tuple[str, ...], made: tuple[str, ...], check: Callable[[set[str], int], None]) -> None:
    """Kill a command one call later each time until it lives; `check` what is there: files, and rows counted."""
    server = Server()
    file = ModelSecretFile(place / "model.secret")
    fresh = file.file.read()
    counts = []
    for call in range(2 * CALLS_AT_MOST):
        file.path.write_bytes(fresh)
        for name in made:
            (place / name).unlink(missing_ok=True)
        server.begin("command", words[0], call, *(str(place / word[1:]) if word.startswith("@") else word for word in words[1:]))
        ended = server.hear("ended")[-1]
        there = {name for name in made if (place / name).exists() and (place / name).stat().st_size}
        counts.append(file.read().account.opened)
        check(there, counts[-1])
        file.spend(file.read().commitment, [1])  # nothing holds the lock
        if ended == ["ended", 0]:
            assert there == set(made)
            break
        assert ended == ["ended", -signal.SIGKILL]
    else:
        raise AssertionError("it never ended by itself")
    server.process.communicate(timeout=60)
    file.path.write_bytes(fresh)
    for name in made:
        (place / name).unlink(missing_ok=True)
    assert len(counts) > 10
    assert 0 in counts
    assert counts[-1] > 0


def test_killed_at_every_call_of_a_registration(owned: Path) -> None:
    def check(there: set[str], opened: int) -> None:
        assert opened > 0 or not there

    words = ("model", "register", "@digits.tflite", "--key", "@vk", "--secret", "@model.secret", "--out", "@r")
    killed_everywhere(owned, words, ("r",), check)


def test_killed_at_every_call_of_a_link(owned: Path) -> None:
    def check(there: set[str], opened: int) -> None:
        assert opened > 0 or not there
        assert there in (set(), {"s2"}, {"s2", "vk2"}, {"s2", "vk2", "l"})
        if "s2" in there:
            assert ModelSecretFile(owned / "s2").read().account.opened > 0

    fresh = ("--new-key", "@vk2", "--new-secret", "@s2", "--out", "@l")
    killed_everywhere(
        owned, ("model", "link", "@digits.tflite", "--key", "@vk", "--secret", "@model.secret", *fresh), ("s2", "vk2", "l"), check
    )


def test_proofs_at_once_spend_what_there_is_and_no_more(owned: Path, tmp_path: Path) -> None:
    file = ModelSecretFile(tmp_path / "model.secret")
    file.file.write((owned / "model.secret").read_bytes(), over=False)
    file.spend(file.read().commitment, range(BUDGET - 2 * PER_PROOF - 50))
    words = ["prove", "--model", "digits.tflite", "--input", "x.npy", "--secret", str(file.path), "--proof"]
    start = [sys.executable, "-m", "nexus_edge", *words]
    processes = [
        subprocess.Popen([*start, str(tmp_path / f"p{n}")], cwd=owned, env=dict(os.environ), stderr=subprocess.PIPE) for n in range(4)
    ]
    for process in processes:
        process.communicate(timeout=240)
    ends = sorted(process.returncode for process in processes)
    after = file.read().account
    assert set(ends) == {0, ExitStatus.OPENING}
    assert len(list(tmp_path.glob("p?"))) == ends.count(0)
    assert after.left >= PER_PROOF
