"""Who goes next when a newcomers' bucket is short: prefixes take turns, never identities. Pure, in memory only, and bounded.

A prefix waits from when somebody there asked for more than was left until it is served, or nobody there asked for `WAIT_S`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from nexus_edge.wire.limits import CONNECTIONS

WAIT_S: Final = 15.0
"""A requester that nobody takes asks again every second, and after a refusal within 5: three times that."""
WAITING: Final = CONNECTIONS
"""Prefixes that are remembered: as many as can be connected at once. Who comes when there are more has its turn after all of them."""
HALF: Final = 2
"""One prefix holds half of a bucket at most, however few wait."""


@dataclass(frozen=True)
class Waiting:
    """A prefix in the rotation."""

    prefix: str
    wanted: int
    """What its last asker would take of the bucket, in micro-credits."""
    asked_s: float
    """When it was last short, on the monotonic clock."""


@dataclass(frozen=True)
class Rotation:
    """The prefixes that wait for one bucket, the next one first."""

    waiting: tuple[Waiting, ...] = ()

    def at(self, now_s: float) -> "Rotation":
        """Without those where nobody asks any more."""
        fresh = tuple(one for one in self.waiting if now_s - one.asked_s < WAIT_S)
        return self if len(fresh) == len(self.waiting) else Rotation(fresh)

    def short(self, prefix: str, wanted: int, now_s: float) -> "Rotation":
        """Somebody there asked for more than was left: the prefix keeps its place, or takes the last one."""
        here = Waiting(prefix, wanted, now_s)
        if any(one.prefix == prefix for one in self.waiting):
            return Rotation(tuple(here if one.prefix == prefix else one for one in self.waiting))
        return self if len(self.waiting) >= WAITING else Rotation((*self.waiting, here))

    def served(self, prefix: str) -> "Rotation":
        """Somebody there was served: whoever is short there again waits behind all others."""
        return replace(self, waiting=tuple(one for one in self.waiting if one.prefix != prefix))

    def share(self, bucket: int, asker: str) -> int:
        """How much of a bucket one prefix may hold now: its part of what all who wait divide, the asker included, and half at most.

        Where a part is less than the usual job, by the median of those who wait, it is that job: else a bucket that many ask would serve nobody.
        """
        half = bucket // HALF
        wanted = sorted(one.wanted for one in self._contenders(half))
        prefixes = {asker, *(one.prefix for one in self._contenders(half))}
        usual = wanted[len(wanted) // 2] if wanted else 0
        return max(bucket // max(HALF, len(prefixes)), usual)

    def left(self, bucket: int, taken: Mapping[str, int], asker: str) -> int:
        """What a prefix may draw of a bucket now. `taken`: what each prefix holds of it.

        What those before it in the rotation want is kept for them, as far as it is there and within their share: who wants more than
        that holds nobody up.
        """
        share = self.share(bucket, asker)
        free = bucket - sum(taken.values())
        for one in self._contenders(bucket // HALF):
            if one.prefix == asker:
                break
            if one.wanted <= free and taken.get(one.prefix, 0) + one.wanted <= share:
                free -= one.wanted
        return max(0, min(free, share - taken.get(asker, 0)))

    def _contenders(self, half: int) -> Iterable[Waiting]:
        """Those who may ever get what they want."""
        return (one for one in self.waiting if one.wanted <= half)
