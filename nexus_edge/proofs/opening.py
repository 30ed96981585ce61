"""Openings of hiding commitments: what the holder of a committed tensor keeps, and how often he may still prove about it.

A commitment in a zero-knowledge proof is a function of the tensor and of a secret seed. Every proof about it opens some of its rows, at
indices that nobody chooses, and shows nothing as long as all proofs of all holders together open no more distinct rows than the commitment
has random ones: its budget. An opening is one holder's part of that: the seed, an *allowance* in distinct rows, and the rows that his
proofs have opened. The allowances of all holders sum to at most the budget; each counts for himself, since shares may open different rows.

The bytes are a container (`nexus_edge.proofs.container`), docs/protocol/files.md.
"""

import hashlib
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from nexus_edge.errors import OpeningError, OpeningSpent
from nexus_edge.proofs import _native
from nexus_edge.proofs.container import MIB, ContainerError, Format, Section
from nexus_edge.proofs.native_errors import translated
from nexus_edge.proofs.ports import Array, Port, TensorType
from nexus_edge.types import SecurityBits, TensorCommitment

FORMAT = Format(
    b"NXEOPENG",
    1,
    (Section("tensor", 64), Section("commitment", 32), Section("seed", 32), Section("account", 512 * MIB), Section("checksum", 32)),
)
"""An opening as a file. Secret."""

_ZK = 1
_DTYPES = ("int8", "uint8")
_SECURITIES: tuple[SecurityBits, ...] = (100, 128)
_MAX_RANK = 6

AGAIN = "commit the tensor afresh, or ask the owner of the commitment for a share with more openings"


@dataclass(frozen=True)
class Opening:
    """One holder's part of a hiding commitment, as a value. `HeldOpening` and `OpeningFile` keep one and count what is opened.

    >>> from nexus_edge.data import demo_digits, demo_model
    >>> from nexus_edge.proofs import Model, commit_tensor
    >>> held = commit_tensor(Model.from_tflite(demo_model()).inputs[0], demo_digits()[0][0])
    >>> opening = held.read()
    >>> opening.allowance, opening.rows_left, opening.proofs_left
    (2048, 2048, 7)
    """

    tensor: TensorType
    security: SecurityBits
    commitment: TensorCommitment
    seed: _native.Seed = field(repr=False, compare=False)
    allowance: int
    """How many distinct rows this holder may open in all."""
    bitmap: bytes = field(repr=False)
    """Bit `i % 8` of byte `i // 8` says whether row `i` has been opened."""

    @classmethod
    def fresh(
        cls, tensor: TensorType, security: SecurityBits, commitment: TensorCommitment, seed: _native.Seed, rows: Iterable[int] = ()
    ) -> "Opening":
        """The whole budget of a new commitment, less rows that are opened already."""
        sizes = _sizes(tensor, security)
        unopened = cls(tensor, security, commitment, seed, sizes["budget"], bytes(1 << sizes["log_domain"] - 3))
        return unopened.spent(rows)

    @cached_property
    def rows_opened(self) -> int:
        """Distinct rows that this holder has opened."""
        return int.from_bytes(self.bitmap, "little").bit_count()

    @property
    def rows_left(self) -> int:
        """Distinct rows that he may still open."""
        return self.allowance - self.rows_opened

    @property
    def rows_per_proof(self) -> int:
        """The most rows that one proof opens."""
        return _sizes(self.tensor, self.security)["per_proof"]

    @property
    def proofs_left(self) -> int:
        """Proofs that the rows left are enough for, whatever rows they open."""
        return self.rows_left // self.rows_per_proof

    def spent(self, rows: Iterable[int]) -> "Opening":
        """After a proof that opens these rows. Raises `OpeningSpent` if it may not."""
        bitmap = bytearray(self.bitmap)
        for row in rows:
            bitmap[row >> 3] |= 1 << (row & 7)
        after = replace(self, bitmap=bytes(bitmap))
        if after.rows_left < 0:
            why = (
                f"the proof opens {after.rows_opened - self.rows_opened} more rows of the commitment, {self.rows_left} may still be opened"
            )
            raise OpeningSpent("the proof was dropped", why, AGAIN)
        return after

    def split(self, proofs: int) -> tuple["Opening", "Opening"]:
        """What is kept, and an opening of its own for `proofs` proofs by another holder. Raises `OpeningSpent`."""
        given = proofs * self.rows_per_proof
        if not 0 <= given <= self.rows_left:
            raise OpeningSpent("no such share", f"{proofs} proofs open up to {given} rows, {self.rows_left} may still be opened", AGAIN)
        kept = replace(self, allowance=self.allowance - given)
        return kept, replace(self, allowance=given, bitmap=bytes(len(self.bitmap)))

    def of(self, commitment: TensorCommitment) -> "Opening":
        """Itself. Raises `OpeningError` if it is not that commitment's."""
        if self.commitment != commitment:
            raise OpeningError("the opening does not fit", f"it is of commitment {self.commitment.hex()}, not {commitment.hex()}")
        return self

    def check_room(self) -> None:
        """Raise `OpeningSpent` if it is hopeless to begin a proof: of the rows that it opens on average, not even half may be opened."""
        rows = 8 * len(self.bitmap)
        if self.rows_left < self.rows_per_proof * (rows - self.rows_opened) / rows / 2:
            raise OpeningSpent(
                "no proof was begun", f"{self.rows_left} more rows of the commitment may be opened, too few for a proof", AGAIN
            )

    def check_port(self, port: Port, security: SecurityBits) -> None:
        """Raise `OpeningError` unless it can be of that input or output."""
        if (self.tensor, self.security) != (port.tensor, security):
            mine, its = _describe(self.tensor, self.security), _describe(port.tensor, security)
            raise OpeningError("the opening does not fit", f"it is of {mine}, {port.name!r} is {its}")

    def commits_to(self, integers: Array) -> bool:
        """Whether the commitment is to these integers."""
        return commitment_of(self.tensor, integers, self.security, self.seed) == self.commitment

    def describe(self) -> dict[str, Any]:
        """Everything but the seed, for JSON."""
        return {
            "commitment": self.commitment.hex(),
            "dtype": self.tensor.dtype,
            "shape": list(self.tensor.dims),
            "scale": self.tensor.scale,
            "zero_point": self.tensor.zero_point,
            "security": self.security,
            "rows_allowed": self.allowance,
            "rows_opened": self.rows_opened,
            "rows_left": self.rows_left,
            "proofs_left": self.proofs_left,
        }

    def to_bytes(self) -> bytes:
        """The file. It holds the seed: only for its owner's eyes."""
        account = struct.pack("<Q", self.allowance) + self.bitmap
        parts = (_encode_tensor(self.tensor, self.security), self.commitment, self.seed.expose(), account)
        return FORMAT.encode(*parts, _checksum(parts))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Opening":
        """Decode strictly. Raises `OpeningError`."""
        try:
            *parts, checksum = FORMAT.decode(data)
        except ContainerError as broken:
            raise _damaged(broken.why) from broken
        if checksum != _checksum(parts):
            raise _damaged("its checksum is wrong")
        encoded, commitment, seed, account = parts
        tensor, security = _decode_tensor(encoded)
        sizes = _sizes(tensor, security)
        if (len(commitment), len(seed), len(account)) != (32, 32, 8 + (1 << sizes["log_domain"] - 3)):
            raise _damaged("its parts have other lengths than its tensor needs")
        (allowance,) = struct.unpack_from("<Q", account)
        opening = cls(tensor, security, TensorCommitment(commitment), _native.Seed.load(seed), allowance, account[8:])
        if allowance > sizes["budget"] or opening.rows_left < 0:
            raise _damaged("it allows more rows than the commitment has, or has opened more than it allows")
        return opening


def commitment_of(tensor: TensorType, integers: Array, security: SecurityBits, seed: _native.Seed | None) -> TensorCommitment:
    """The commitment to a tensor: hiding with a seed, plain without."""
    with translated():
        return TensorCommitment(_native.commit_tensor(tensor, integers, security, "plain" if seed is None else "zk", seed))


def _sizes(tensor: TensorType, security: SecurityBits) -> dict[str, int]:
    return _native.tensor_rows(tensor, security)


def _describe(tensor: TensorType, security: SecurityBits) -> str:
    quantised = "no scale" if tensor.scale is None else f"scale {tensor.scale:.9g}"
    return f"{tensor.dtype} {list(tensor.dims)} ({quantised}, zero point {tensor.zero_point}, {security} bits)"


def _encode_tensor(tensor: TensorType, security: SecurityBits) -> bytes:
    rank = len(tensor.dims)
    scaled = struct.pack("<Bf", tensor.scale is not None, tensor.scale or 0.0)
    head = struct.pack(f"<IBBB{rank}I", security, _ZK, _DTYPES.index(tensor.dtype), rank, *tensor.dims)
    return head + scaled + struct.pack("<i", tensor.zero_point)


def _decode_tensor(data: bytes) -> tuple[TensorType, SecurityBits]:
    try:
        security, mode, dtype, rank = struct.unpack_from("<IBBB", data)
        *dims, has_scale, scale, zero_point = struct.unpack(f"<{rank}IBfi", data[7:])
    except struct.error as broken:
        raise _damaged("its tensor has another length") from broken
    known = mode == _ZK and security in _SECURITIES and dtype < len(_DTYPES) and 1 <= rank <= _MAX_RANK
    if not known or not 0 < math.prod(dims) < 1 << 32 or not math.isfinite(scale):
        raise _damaged("no such tensor")
    tensor = TensorType(_DTYPES[dtype], tuple(dims), scale if has_scale else None, zero_point)
    if _encode_tensor(tensor, security) != data:
        raise _damaged("its tensor is not canonical")
    return tensor, security


def _checksum(parts: Iterable[bytes]) -> bytes:
    """Against damage, not against malice: who can write the file is its owner."""
    return hashlib.sha256(b"".join(parts)).digest()


def _damaged(why: str) -> OpeningError:
    return OpeningError(
        "the opening cannot be used", why, "restore the file only if no proof was made since: openings must not be counted twice"
    )
