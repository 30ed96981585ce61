"""What a worker lends: pure rules over integers of micro-credits. docs/mesh-protocol.md, "Money"; nothing is given per identity."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from nexus_edge.identity import short_id
from nexus_edge.ledger.rotation import Rotation
from nexus_edge.types import MicroCredits, NodeId
from nexus_edge.wire.limits import INTEGER

CREDIT: Final = 1_000_000
DAY_MS: Final = 86_400_000
LINE_SHARE: Final = 4
"""A quarter of the verified value that a peer's work gave us is lent to it."""
DECAY_SHARE: Final = 130
"""Of that value is forgotten each day: a half-life of 90 days."""
WRITE_OFF_SHARE: Final = 10
"""Of a bucket may be written off a day: the owner's donation, so that defaulters cannot close it for ever."""


@dataclass(frozen=True)
class Group:
    """A fleet: the nodes that one owner's key names share one line, as one account."""

    key: NodeId
    name: str = ""
    line: MicroCredits | None = None
    """What they may owe us together; None: there is no bound."""

    @property
    def label(self) -> str:
        """What people call it."""
        return self.name or short_id(self.key)

    @property
    def bound(self) -> MicroCredits:
        """The line as a number."""
        return MicroCredits(INTEGER) if self.line is None else self.line


@dataclass(frozen=True)
class CreditPolicy:
    """The owner's limits."""

    private_bucket: MicroCredits = field(default=MicroCredits(5 * CREDIT))
    """Lent in all to newcomers on networks of our own."""
    public_bucket: MicroCredits = field(default=MicroCredits(CREDIT // 2))
    """Lent in all to all other newcomers."""
    cap: MicroCredits = field(default=MicroCredits(50 * CREDIT))
    """Lent in all, but to fleets."""
    spend_open: MicroCredits = field(default=MicroCredits(10 * CREDIT))
    """What we may owe and have promised at once: a script cannot indebt its owner further."""
    spend_day: MicroCredits = field(default=MicroCredits(5 * CREDIT))
    """What we may spend in 24 hours."""
    groups: tuple[Group, ...] = field(default=(), kw_only=True)
    """The fleets that we serve as our own. Who is in several belongs to the one that stands first."""


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
    group: Group | None = None
    """The fleet it belongs to now: it draws of that line, and of nothing else."""

    @property
    def exposure(self) -> int:
        """What we lose if it never pays."""
        return max(0, self.owed + self.reserved_in + self.locked_for - self.written_off)

    @property
    def line(self) -> int:
        """What we lend it for its own sake, or its fleet as a whole."""
        return self.granted + self.verified // LINE_SHARE if self.group is None else self.group.bound

    @property
    def over(self) -> int:
        """What it takes of the newcomers' bucket."""
        return max(0, self.exposure - self.line) if self.group is None else 0

    def draws(self, price: int) -> int:
        """What one more price would take of the newcomers' bucket."""
        return replace(self, reserved_in=self.reserved_in + price).over - self.over


NOBODY_WAITS: Final = Rotation()


def room(asker: Standing, others: Iterable[Standing], policy: CreditPolicy, rotation: Rotation = NOBODY_WAITS) -> MicroCredits:
    """What the asker may still draw: of its fleet's line; or of its own, then of its bucket in turn with others, and all within the cap."""
    rest = [other for other in others if other.peer != asker.peer]
    lent = _lent_alone(asker, rest, policy, rotation) if asker.group is None else _lent_to_member(asker.group, rest)
    # A book in the asker's favour is drawn first: that lends nothing, whatever others have drawn.
    balance = asker.owed + asker.reserved_in + asker.locked_for - asker.written_off
    return MicroCredits(min(INTEGER, max(0, lent - balance)))


def share(standing: Standing, policy: CreditPolicy) -> int:
    """Its weight where the machine is shared out by lines. A line without a bound weighs as much as all who are in no fleet can."""
    group = standing.group
    return standing.line if group is None or group.line is not None else max(policy.cap, CREDIT)


def _lent_to_member(group: Group, rest: Iterable[Standing]) -> int:
    """What the other members have left of the common line."""
    return max(0, group.bound - sum(other.exposure for other in rest if other.group is not None and other.group.key == group.key))


def _lent_alone(asker: Standing, others: Iterable[Standing], policy: CreditPolicy, rotation: Rotation) -> int:
    """Its line and what its prefix may draw of its bucket; what is left under the cap, if that is less."""
    rest = [other for other in others if other.group is None]
    taken = Counter({asker.prefix: asker.over})
    for other in rest:
        if other.private == asker.private:
            taken[other.prefix] += other.over
    left_in_bucket = rotation.left(_buckets(policy)[asker.private], taken, asker.prefix)
    by_cap = max(0, policy.cap - sum(other.exposure for other in rest))
    return min(asker.line + asker.over + left_in_bucket, by_cap)


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
