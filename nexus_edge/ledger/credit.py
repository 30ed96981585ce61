"""What a worker lends: pure rules over integers of micro-credits. docs/mesh-protocol.md, "Money"; nothing is given per identity."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from nexus_edge.types import MicroCredits

CREDIT: Final = 1_000_000
DAY_MS: Final = 86_400_000
LINE_SHARE: Final = 4
"""A quarter of the verified value that a peer's work gave us is lent to it."""
DECAY_SHARE: Final = 130
"""Of that value is forgotten each day: a half-life of 90 days."""
WRITE_OFF_SHARE: Final = 10
"""Of a bucket may be written off a day: the owner's donation, so that defaulters cannot close it for ever."""


@dataclass(frozen=True)
class CreditPolicy:
    """The owner's limits."""

    private_bucket: MicroCredits = field(default=MicroCredits(5 * CREDIT))
    """Lent in all to newcomers on networks of our own."""
    public_bucket: MicroCredits = field(default=MicroCredits(CREDIT // 2))
    """Lent in all to all other newcomers."""
    cap: MicroCredits = field(default=MicroCredits(50 * CREDIT))
    """Lent in all."""
    spend_open: MicroCredits = field(default=MicroCredits(10 * CREDIT))
    """What we may owe and have promised at once: a script cannot indebt its owner further."""
    spend_day: MicroCredits = field(default=MicroCredits(5 * CREDIT))
    """What we may spend in 24 hours."""


@dataclass(frozen=True)
class Standing:
    """A requester as a worker's book has it."""

    peer: bytes
    prefix: str
    private: bool
    owed: int
    """What it owes us; negative: what we owe it."""
    reserved_in: int
    locked_for: int
    written_off: int
    granted: int
    verified: int
    """Decayed sum of prices of its jobs for us whose proof verified."""

    @property
    def exposure(self) -> int:
        """What we lose if it never pays."""
        return max(0, self.owed + self.reserved_in + self.locked_for - self.written_off)

    @property
    def line(self) -> int:
        """What we lend it for its own sake."""
        return self.granted + self.verified // LINE_SHARE

    @property
    def over(self) -> int:
        """What it takes of the newcomers' bucket."""
        return max(0, self.exposure - self.line)


def room(asker: Standing, others: Iterable[Standing], policy: CreditPolicy) -> MicroCredits:
    """What the asker may still draw: of its line, then of its bucket, of which one prefix holds half at most, and all within the cap."""
    rest = [other for other in others if other.peer != asker.peer]
    bucket = policy.private_bucket if asker.private else policy.public_bucket
    of_bucket = [other for other in rest if other.private == asker.private]
    taken = sum(other.over for other in of_bucket)
    taken_by_prefix = sum(other.over for other in of_bucket if other.prefix == asker.prefix)
    left_in_bucket = min(bucket - taken, bucket // 2 - taken_by_prefix)
    # A book in the asker's favour is drawn first: that lends nothing, whatever others have drawn.
    balance = asker.owed + asker.reserved_in + asker.locked_for - asker.written_off
    by_bucket = asker.line + max(0, left_in_bucket)
    by_cap = max(0, policy.cap - sum(other.exposure for other in rest))
    return MicroCredits(max(0, min(by_bucket, by_cap) - balance))


def decayed(value: int, days: int) -> int:
    """Verified value after so many days."""
    for _ in range(min(days, 10_000)):
        if value < DECAY_SHARE:
            break
        value -= value // DECAY_SHARE
    return value


def write_offs(standings: Iterable[Standing], recent: Mapping[bytes, int], policy: CreditPolicy) -> dict[bytes, MicroCredits]:
    """What to write off today: at most a tenth of each bucket, of overflow that is old.

    `recent` is what each peer was admitted for in the last 14 days: at most that much of its overflow is younger.
    """
    budgets = {private: bucket // WRITE_OFF_SHARE for private, bucket in _buckets(policy).items()}
    amounts: dict[bytes, MicroCredits] = {}
    for standing in sorted(standings, key=lambda one: one.peer):
        amount = min(standing.over - recent.get(standing.peer, 0), budgets[standing.private])
        if amount > 0:
            amounts[standing.peer] = MicroCredits(amount)
            budgets[standing.private] -= amount
    return amounts


def _buckets(policy: CreditPolicy) -> dict[bool, int]:
    return {True: policy.private_bucket, False: policy.public_bucket}
