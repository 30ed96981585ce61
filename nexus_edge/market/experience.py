"""What a requester knows of workers from its own jobs: successes and failures, which count half after two weeks."""

from dataclasses import dataclass, replace
from typing import Final

from nexus_edge.types import EPOCH, UnixMs

PPM: Final = 1_000_000
HALF_LIFE_MS: Final = 14 * 86_400_000
PRIOR: Final = 4
"""Jobs' worth of doubt about one who has shown nothing."""
PRIOR_FAILING_PPM: Final = 300_000
"""How many of those are taken to fail."""


@dataclass(frozen=True)
class Experience:
    """Successes and failures in millionths, as they count at `at`; both halve in 14 days."""

    successes: int = 0
    failures: int = 0
    at: UnixMs = EPOCH
    claimed_ms: int = 0
    """What the worker claimed for its counted successes, decayed likewise."""
    measured_ms: int = 0
    """What they took."""

    def seen(self, now: UnixMs) -> "Experience":
        """As it counts now. A clock that went back changes nothing."""
        age = max(0, now - self.at)
        return replace(
            self,
            successes=decayed(self.successes, age),
            failures=decayed(self.failures, age),
            claimed_ms=decayed(self.claimed_ms, age),
            measured_ms=decayed(self.measured_ms, age),
            at=UnixMs(max(now, self.at)),
        )

    def succeeded(self, now: UnixMs, claimed_ms: int, measured_ms: int) -> "Experience":
        """After one more verified job."""
        before = self.seen(now)
        return replace(
            before,
            successes=before.successes + PPM,
            claimed_ms=before.claimed_ms + max(1, claimed_ms),
            measured_ms=before.measured_ms + max(0, measured_ms),
        )

    def failed(self, now: UnixMs) -> "Experience":
        """After a lease that was lost or whose proof was false."""
        before = self.seen(now)
        return replace(before, failures=before.failures + PPM)

    @property
    def is_proven(self) -> bool:
        """Whether it did a verified job for us, and succeeds more than it fails."""
        return self.successes > self.failures

    @property
    def p_fail(self) -> int:
        """The probability that the next lease fails, in ppm."""
        expected = self.failures + PRIOR * PRIOR_FAILING_PPM
        return PPM * expected // (self.successes + self.failures + PRIOR * PPM)

    @property
    def slowness_permille(self) -> int:
        """How much longer it takes than it claims, at least 1000."""
        return max(1000, 1000 * self.measured_ms // self.claimed_ms) if self.claimed_ms else 1000


def decayed(value: int, age_ms: int) -> int:
    """Half of it after each half-life, linear between: no floats where peers are compared."""
    halvings, rest = divmod(age_ms, HALF_LIFE_MS)
    if halvings >= 64:
        return 0
    return (value >> halvings) * (2 * HALF_LIFE_MS - rest) // (2 * HALF_LIFE_MS)
