"""An account of rows: how many distinct rows of a hiding commitment its holder may open, and which his proofs have opened.

It is the same for a tensor and for private weights. Accounts of several holders of one commitment each count for themselves, and their
allowances sum to at most the commitment's budget: shares may open different rows.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from nexus_edge.errors import OpeningSpent

AGAIN = "commit afresh, or ask the owner of the commitment for a share with more openings"


@dataclass(frozen=True)
class RowAccount:
    """The state of an account, as a value."""

    per_proof: int
    """The most rows that one proof opens."""
    allowance: int
    """How many distinct rows the holder may open in all."""
    bitmap: bytes = field(repr=False)
    """Bit `i % 8` of byte `i // 8` says whether row `i` has been opened."""

    @classmethod
    def fresh(cls, log_domain: int, budget: int, per_proof: int) -> "RowAccount":
        """Of a new commitment: nothing opened, the whole budget allowed."""
        return cls(per_proof, budget, bytes(1 << log_domain - 3))

    @cached_property
    def opened(self) -> int:
        """Distinct rows opened."""
        return int.from_bytes(self.bitmap, "little").bit_count()

    @property
    def left(self) -> int:
        """Distinct rows that may still be opened."""
        return self.allowance - self.opened

    @property
    def proofs_left(self) -> int:
        """Proofs that the rows left are enough for, whatever rows they open."""
        return self.left // self.per_proof

    def spent(self, rows: Iterable[int]) -> "RowAccount":
        """After a proof that opens these rows. Raises `OpeningSpent` if it may not."""
        bitmap = bytearray(self.bitmap)
        for row in rows:
            bitmap[row >> 3] |= 1 << (row & 7)
        after = replace(self, bitmap=bytes(bitmap))
        if after.left < 0:
            why = f"the proof opens {after.opened - self.opened} more rows of the commitment, {self.left} may still be opened"
            raise OpeningSpent("the proof was dropped", why, AGAIN)
        return after

    def split(self, proofs: int) -> tuple["RowAccount", "RowAccount"]:
        """What is kept, and an account of its own for `proofs` proofs by another holder. Raises `OpeningSpent`."""
        given = proofs * self.per_proof
        if not 0 <= given <= self.left:
            raise OpeningSpent("no such share", f"{proofs} proofs open up to {given} rows, {self.left} may still be opened", AGAIN)
        return replace(self, allowance=self.allowance - given), replace(self, allowance=given, bitmap=bytes(len(self.bitmap)))

    def check_room(self) -> None:
        """Raise `OpeningSpent` if it is hopeless to begin a proof: of the rows that it opens on average, not even half may be opened."""
        rows = 8 * len(self.bitmap)
        if self.left < self.per_proof * (rows - self.opened) / rows / 2:
            raise OpeningSpent("no proof was begun", f"{self.left} more rows of the commitment may be opened, too few for a proof", AGAIN)

    def describe(self) -> dict[str, int]:
        """For JSON."""
        numbers = {"rows_allowed": self.allowance, "rows_opened": self.opened, "rows_left": self.left}
        return {**numbers, "proofs_left": self.proofs_left}

    def to_bytes(self) -> bytes:
        """Allowance and bitmap; the rest follows from what is committed."""
        return struct.pack("<Q", self.allowance) + self.bitmap

    @classmethod
    def from_bytes(cls, data: bytes, log_domain: int, budget: int, per_proof: int) -> "RowAccount":
        """Decode strictly. Raises `ValueError`."""
        if len(data) != 8 + (1 << log_domain - 3):
            raise ValueError("its account has another length than its commitment needs")
        (allowance,) = struct.unpack_from("<Q", data)
        account = cls(per_proof, allowance, data[8:])
        if allowance > budget or account.left < 0:
            raise ValueError("it allows more rows than the commitment has, or has opened more than it allows")
        return account
