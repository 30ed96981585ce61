"""Proofs about the weights of private models: registrations and links.

A *registration* shows once that the committed weights are what the public program assumes of them; without one, a proof about a private model
says nothing. A *link* shows that fresh commitments hold the weights of the registered one. Both open rows of every commitment that they are
about, which are counted before anything is returned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nexus_edge.errors import OpeningError, ProofRejected, RejectReason
from nexus_edge.proofs import _native
from nexus_edge.proofs.container import MIB, ContainerError, Format, Section
from nexus_edge.proofs.key import ProvingKey, VerifyingKey
from nexus_edge.proofs.native_errors import translated
from nexus_edge.proofs.proving import Progress
from nexus_edge.types import ModelDigest, WeightsCommitment

MOST_LINKED = 64
"""Commitments that one link may cover."""

REGISTRATION = Format(b"NXEREGIS", 1, (Section("model", 32), Section("proof", 64 * MIB)))
LINK = Format(b"NXELINKS", 1, (Section("model", 32), Section("commitments", 32 * MOST_LINKED), Section("proof", 64 * MIB)))


@dataclass(frozen=True)
class Registration:
    """The proof that a model's private weights are what its program assumes of them."""

    digest: ModelDigest
    body: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> "Registration":
        """Decode strictly. Raises `ProofRejected`."""
        digest, body = _decode(REGISTRATION, data, "registration")
        return cls(_digest(digest, "registration"), body)

    def to_bytes(self) -> bytes:
        """The registration as a file."""
        return REGISTRATION.encode(self.digest, self.body)


@dataclass(frozen=True)
class Link:
    """The proof that other commitments hold the weights of a registered model."""

    digest: ModelDigest
    commitments: tuple[WeightsCommitment, ...]
    body: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> "Link":
        """Decode strictly. Raises `ProofRejected`."""
        digest, roots, body = _decode(LINK, data, "link")
        if not roots or len(roots) % 32:
            raise ProofRejected(RejectReason.MALFORMED, "link: commitments of 32 bytes were expected")
        commitments = tuple(WeightsCommitment(roots[at : at + 32]) for at in range(0, len(roots), 32))
        return cls(_digest(digest, "link"), commitments, body)

    def to_bytes(self) -> bytes:
        """The link as a file."""
        return LINK.encode(self.digest, b"".join(self.commitments), self.body)


def register(key: ProvingKey, *, threads: int = 0, progress: Progress | None = None) -> Registration:
    """Prove, once for a private model, that its weights are what its program assumes.

    Raises `UnsupportedModel` for a model that is not private, `OpeningError`, `OpeningSpent`, `Cancelled` and `ProverError`.
    """
    if key.secret is not None:
        key.secret.read().check_room()
    with translated():
        body, opened = key.native.register(threads, _callback(progress))
    _spend([key], opened, for_link=False)
    return Registration(key.verifying_key.digest, body)


def link(key: ProvingKey, fresh: Sequence[ProvingKey], *, threads: int = 0, progress: Progress | None = None) -> Link:
    """Prove that fresh commitments (`ProvingKey.committed_again`) hold the weights of the registered one. Raises as `register` does."""
    if key.secret is not None:
        key.secret.read().check_room(for_link=True)
    with translated():
        body, opened = key.native.link([other.native for other in fresh], threads, _callback(progress))
    _spend([key, *fresh], opened, for_link=True)
    commitments = [other.verifying_key.commitment for other in fresh]
    return Link(key.verifying_key.digest, tuple(c for c in commitments if c is not None), body)


def verify_registration(key: VerifyingKey, registration: Registration) -> None:
    """Raise `ProofRejected` unless the model of the key is registered by this; from then on `verify` accepts proofs about it.

    The key may be of the registered commitment or of any other.
    """
    _same_model(key, registration.digest)
    with translated():
        _native.verify_registration(key.native.registered_key(), registration.body)
    key.native.admit_registration(key.digest)


def verify_link(key: VerifyingKey, link: Link) -> None:
    """Raise `ProofRejected` unless the commitments of the link hold the weights of the key's model.

    If the key is under a commitment that is not the registered one, it must be among them.
    """
    _same_model(key, link.digest)
    registered = key.native.registered_key()
    if key.commitment not in (registered.commitment, *link.commitments):
        raise ProofRejected(RejectReason.STATEMENT, "the link is of other commitments than the key's")
    if registered.commitment in link.commitments:
        raise ProofRejected(RejectReason.STATEMENT, "it links the registered commitment to itself")
    with translated():
        fresh = [registered.linked_key(commitment) for commitment in link.commitments]
        _native.verify_link(registered, fresh, link.body)
    if key.commitment is not None and key.commitment in link.commitments:
        key.native.admit_link(key.digest, key.commitment)


def _same_model(key: VerifyingKey, digest: ModelDigest) -> None:
    if not key.is_private:
        raise ProofRejected(RejectReason.STATEMENT, "the key's model has no private weights: there is nothing to register")
    if digest != key.digest:
        raise ProofRejected(RejectReason.STATEMENT, f"it is of another model than the key: {digest.hex()}")


def _spend(keys: Sequence[ProvingKey], opened: Sequence[tuple[_native.Seed, list[int]] | None], *, for_link: bool) -> None:
    """Every row is counted before anything is returned."""
    for key, one in zip(keys, opened, strict=True):
        if one is None:
            continue
        if key.secret is None or key.verifying_key.commitment is None:
            raise OpeningError("the proof was dropped", "nobody counts the rows that it opens of the commitment to private weights")
        key.secret.spend(key.verifying_key.commitment, one[1], for_link=for_link)


def _callback(progress: Progress | None) -> Callable[[str, float], bool] | None:
    return None if progress is None else lambda phase, fraction: progress(phase, fraction) is not False


def _decode(form: Format, data: bytes, noun: str) -> tuple[bytes, ...]:
    try:
        return form.decode(data)
    except ContainerError as broken:
        raise ProofRejected(RejectReason(broken.fault.value), f"{noun}: {broken.why}") from broken


def _digest(digest: bytes, noun: str) -> ModelDigest:
    if len(digest) != 32:
        raise ProofRejected(RejectReason.MALFORMED, f"{noun}: a digest has 32 bytes")
    return ModelDigest(digest)
