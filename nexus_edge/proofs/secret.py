"""Secrets of private models: what their owner keeps of a commitment to weights, and how often he may still prove about it.

The weights are not in it: they are in the owner's model file, which stays as secret as the owner keeps it. A secret has the seed of one
commitment, an account (`nexus_edge.proofs.rows`) of the rows that proofs, registrations and links have opened of it, and how the model was
compiled, so that it becomes the same program again. Whoever has it and guesses the weights can check the guess; whoever has it and enough
proofs can compute functions of the weights.

The bytes are a container (`nexus_edge.proofs.container`), docs/protocol/files.md.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from nexus_edge.errors import OpeningError, OpeningSpent
from nexus_edge.proofs import _native
from nexus_edge.proofs.container import MIB, CheckedFormat, ContainerError, Section
from nexus_edge.proofs.keeping import InFile, InMemory
from nexus_edge.proofs.rows import RowAccount
from nexus_edge.types import ModelDigest, PrivateForm, SecurityBits, WeightsCommitment

NOUN = "secret of the model"
FORMAT = CheckedFormat(
    b"NXESECRT",
    2,
    (
        Section("program", MIB),
        Section("model", 32),
        Section("commitments", 64),
        Section("seed", 32),
        Section("rows", 16),
        Section("account", 512 * MIB),
        Section("checksum", 32),
    ),
)
"""A secret as a file."""

_SECURITIES: tuple[SecurityBits, ...] = (100, 128)
_ROWS = struct.Struct("<IQI")

AGAIN = "make a fresh commitment of the model with `nexus-edge model link`, and prove under its key and its secret"
ANEW = "no more commitments can be linked to this one: commit the model anew, and register that"


@dataclass(frozen=True)
class CompiledAs:
    """What beside the model file decides on the program of a private model, all of it public."""

    name: str
    semantics: str
    log_bounds: tuple[int, ...]

    @property
    def form(self) -> PrivateForm:
        """The private form."""
        return PrivateForm(self.log_bounds)

    def to_bytes(self) -> bytes:
        """Each part with its length."""
        parts = (self.name.encode(), self.semantics.encode(), bytes(self.log_bounds))
        return b"".join(struct.pack("<I", len(part)) + part for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> "CompiledAs":
        """Decode strictly. Raises `ValueError`."""
        parts = []
        for _ in range(3):
            if len(data) < 4:
                raise ValueError("its program has another length")
            end = 4 + struct.unpack_from("<I", data)[0]
            if end > len(data):
                raise ValueError("its program has another length")
            parts.append(data[4:end])
            data = data[end:]
        if data:
            raise ValueError("its program has another length")
        return cls(parts[0].decode(), parts[1].decode(), tuple(parts[2]))


@dataclass(frozen=True)
class ModelSecret:
    """What the owner keeps of one commitment, as a value. `HeldSecret` and `ModelSecretFile` keep one and count what is opened."""

    compiled: CompiledAs
    security: SecurityBits
    digest: ModelDigest
    registered: WeightsCommitment
    """The commitment that the digest names."""
    commitment: WeightsCommitment
    """This one: the registered one, or another of the same model."""
    seed: _native.Seed = field(repr=False, compare=False)
    sizes: Mapping[str, int]
    """Rows of the commitment: `log_domain`, `budget`, `per_proof`."""
    account: RowAccount

    @property
    def is_registered(self) -> bool:
        """Whether this commitment is the one that the digest names."""
        return self.commitment == self.registered

    @property
    def kept(self) -> int:
        """Rows of the registered commitment that proofs leave for one link, without which there could be no fresh commitment any more."""
        return self.account.per_proof if self.is_registered else 0

    @property
    def proofs_left(self) -> int:
        """Proofs that the rows left are enough for, whatever rows they open."""
        return max(0, self.account.left - self.kept) // self.account.per_proof

    def check_room(self, *, for_link: bool = False) -> None:
        """Raise `OpeningSpent` if it is hopeless to begin a proof, or a link."""
        kept = 0 if for_link else self.kept
        try:
            replace(self.account, allowance=max(self.account.opened, self.account.allowance - kept)).check_room()
        except OpeningSpent as spent:
            raise OpeningSpent(spent.what, spent.why, self._hint(for_link)) from None

    def spent(self, rows: Iterable[int], *, for_link: bool = False) -> "ModelSecret":
        """After a proof or a link that opens these rows. Raises `OpeningSpent` if it may not."""
        kept = 0 if for_link else self.kept
        try:
            after = self.account.spent(rows)
        except OpeningSpent as spent:
            raise OpeningSpent(spent.what, spent.why, self._hint(for_link)) from None
        if after.left < kept:
            why = f"{self.account.left} more rows of the commitment may be opened, of which {kept} are kept for a link"
            raise OpeningSpent("the proof was dropped", why, self._hint(for_link))
        return replace(self, account=after)

    def _hint(self, for_link: bool) -> str:
        return ANEW if for_link and self.is_registered else AGAIN

    def of(self, commitment: WeightsCommitment) -> "ModelSecret":
        """Itself. Raises `OpeningError` if it is not that commitment's."""
        if self.commitment != commitment:
            raise OpeningError("the secret does not fit", f"it is of commitment {self.commitment.hex()}, not {commitment.hex()}")
        return self

    def describe(self) -> dict[str, Any]:
        """Everything but the seed, for JSON."""
        return {
            "digest": self.digest.hex(),
            "commitment": self.commitment.hex(),
            "registered": self.is_registered,
            "security": self.security,
            "semantics": self.compiled.semantics,
            "log_bounds": list(self.compiled.log_bounds),
            **self.account.describe(),
            "proofs_left": self.proofs_left,
        }

    def to_bytes(self) -> bytes:
        """The file. It holds the seed: only for its owner's eyes."""
        program = struct.pack("<I", self.security) + self.compiled.to_bytes()
        rows = _ROWS.pack(self.sizes["log_domain"], self.sizes["budget"], self.sizes["per_proof"])
        commitments = self.registered + self.commitment
        parts = (program, self.digest, commitments, self.seed.expose(), rows, self.account.to_bytes())
        return FORMAT.encode(*parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> "ModelSecret":
        """Decode strictly. Raises `OpeningError`."""
        try:
            parts = FORMAT.decode(data)
        except ContainerError as broken:
            raise _damaged(broken.why) from broken
        program, digest, commitments, seed, rows, account = parts
        if (len(digest), len(commitments), len(seed), len(rows)) != (32, 64, 32, _ROWS.size) or len(program) < 4:
            raise _damaged("its parts have other lengths")
        (security,) = struct.unpack_from("<I", program)
        log_domain, budget, per_proof = _ROWS.unpack(rows)
        if security not in _SECURITIES or not 3 <= log_domain <= 32 or per_proof == 0 or budget > 1 << log_domain:
            raise _damaged("there is no such commitment")
        sizes = {"log_domain": log_domain, "budget": budget, "per_proof": per_proof}
        try:
            compiled = CompiledAs.from_bytes(program[4:])
            counted = RowAccount.from_bytes(account, **sizes)
        except ValueError as broken:
            raise _damaged(str(broken)) from broken
        registered, commitment = WeightsCommitment(commitments[:32]), WeightsCommitment(commitments[32:])
        return cls(compiled, security, ModelDigest(digest), registered, commitment, _native.Seed.load(seed), sizes, counted)


class SecretHolder(Protocol):
    """Keeps the secret of a private model."""

    def read(self) -> ModelSecret:
        """The secret as it stands. Raises `OpeningError` if there is none."""

    def spend(self, commitment: WeightsCommitment, rows: Iterable[int], *, for_link: bool = False) -> None:
        """Count rows of a commitment as opened, for good. Raises, having counted nothing, `OpeningSpent` or `OpeningError`."""


class HeldSecret(InMemory[ModelSecret]):
    """A secret that this process holds, and loses when it ends. `save` moves it to a file.

    A fork has a copy to read, with which it can open nothing: it would count for itself.
    """

    def __init__(self, secret: ModelSecret) -> None:
        super().__init__(secret, NOUN)

    def spend(self, commitment: WeightsCommitment, rows: Iterable[int], *, for_link: bool = False) -> None:
        """Count rows as opened."""
        self.change(lambda secret: secret.of(commitment).spent(rows, for_link=for_link))

    def save(self, path: Path | str) -> "ModelSecretFile":
        """Move it to a new file of mode 0600, which from then on holds it; when this returns, it is on the disk.

        Raises `FileError`; then it is still held here, unless the file may have it already.
        """
        file = ModelSecretFile(path)
        self.move(file.file, over=False)
        return file


class ModelSecretFile(InFile[ModelSecret]):
    """A secret in a file. Any number of threads and processes may use it at once; a copy of the file would count for itself: never make one."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, FORMAT.limit, NOUN, ModelSecret.from_bytes, "`nexus-edge model commit --private` makes one")

    def spend(self, commitment: WeightsCommitment, rows: Iterable[int], *, for_link: bool = False) -> None:
        """Count rows as opened; when this returns, they are on the disk."""
        self.change(lambda secret: secret.of(commitment).spent(rows, for_link=for_link))


def _damaged(why: str) -> OpeningError:
    return OpeningError(
        "the secret cannot be used", why, "restore the file only if no proof was made since: opened rows must not be counted twice"
    )
