"""Openings of hiding commitments: what the holder of a committed tensor keeps, and how often he may still prove about it.

A commitment in a zero-knowledge proof is a function of the tensor and of a secret seed. Every proof about it opens some of its rows, at
indices that nobody chooses, and shows nothing as long as all proofs of all holders together open no more distinct rows than the commitment
has random ones: its budget. An opening is one holder's part of that: the seed, and an account (`nexus_edge.proofs.rows`) of the rows that he
may open and has opened.

The bytes are a container (`nexus_edge.proofs.container`), docs/protocol/files.md.
"""

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from nexus_edge.errors import OpeningError
from nexus_edge.proofs import _native
from nexus_edge.proofs.container import MIB, CheckedFormat, ContainerError, Section
from nexus_edge.proofs.native_errors import translated
from nexus_edge.proofs.ports import Array, Port, TensorType
from nexus_edge.proofs.rows import RowAccount
from nexus_edge.types import SecurityBits, TensorCommitment

FORMAT = CheckedFormat(
    b"NXEOPENG",
    2,
    (Section("tensor", 64), Section("commitment", 32), Section("seed", 32), Section("account", 512 * MIB), Section("checksum", 32)),
)
"""An opening as a file. Secret."""

_ZK = 1
_DTYPES = ("int8", "uint8")
_SECURITIES: tuple[SecurityBits, ...] = (100, 128)
_MAX_RANK = 6


@dataclass(frozen=True)
class Opening:
    """One holder's part of a hiding commitment, as a value. `HeldOpening` and `OpeningFile` keep one and count what is opened.

    >>> from nexus_edge.data import demo_digits, demo_model
    >>> from nexus_edge.proofs import Model, commit_tensor
    >>> held = commit_tensor(Model.from_tflite(demo_model()).inputs[0], demo_digits()[0][0])
    >>> opening = held.read()
    >>> opening.account.left, opening.account.proofs_left
    (512, 3)
    """

    tensor: TensorType
    security: SecurityBits
    commitment: TensorCommitment
    seed: _native.Seed = field(repr=False, compare=False)
    account: RowAccount

    @classmethod
    def fresh(
        cls, tensor: TensorType, security: SecurityBits, commitment: TensorCommitment, seed: _native.Seed, rows: Iterable[int] = ()
    ) -> "Opening":
        """The whole budget of a new commitment, less rows that are opened already."""
        account = RowAccount.fresh(**_native.tensor_rows(tensor, security)).spent(rows)
        return cls(tensor, security, commitment, seed, account)

    def spent(self, rows: Iterable[int]) -> "Opening":
        """After a proof that opens these rows. Raises `OpeningSpent` if it may not."""
        return replace(self, account=self.account.spent(rows))

    def split(self, proofs: int) -> tuple["Opening", "Opening"]:
        """What is kept, and an opening of its own for `proofs` proofs by another holder. Raises `OpeningSpent`."""
        kept, given = self.account.split(proofs)
        return replace(self, account=kept), replace(self, account=given)

    def of(self, commitment: TensorCommitment) -> "Opening":
        """Itself. Raises `OpeningError` if it is not that commitment's."""
        if self.commitment != commitment:
            raise OpeningError("the opening does not fit", f"it is of commitment {self.commitment.hex()}, not {commitment.hex()}")
        return self

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
            **self.account.describe(),
        }

    def to_bytes(self) -> bytes:
        """The file. It holds the seed: only for its owner's eyes."""
        parts = (_encode_tensor(self.tensor, self.security), self.commitment, self.seed.expose(), self.account.to_bytes())
        return FORMAT.encode(*parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Opening":
        """Decode strictly. Raises `OpeningError`."""
        try:
            parts = FORMAT.decode(data)
        except ContainerError as broken:
            raise _damaged(broken.why) from broken
        encoded, commitment, seed, account = parts
        tensor, security = _decode_tensor(encoded)
        if (len(commitment), len(seed)) != (32, 32):
            raise _damaged("its commitment or its seed has another length")
        try:
            counted = RowAccount.from_bytes(account, **_native.tensor_rows(tensor, security))
        except ValueError as broken:
            raise _damaged(str(broken)) from broken
        return cls(tensor, security, TensorCommitment(commitment), _native.Seed.load(seed), counted)


def commitment_of(tensor: TensorType, integers: Array, security: SecurityBits, seed: _native.Seed | None) -> TensorCommitment:
    """The commitment to a tensor: hiding with a seed, plain without."""
    with translated():
        return TensorCommitment(_native.commit_tensor(tensor, integers, security, "plain" if seed is None else "zk", seed))


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


def _damaged(why: str) -> OpeningError:
    return OpeningError(
        "the opening cannot be used", why, "restore the file only if no proof was made since: openings must not be counted twice"
    )
