"""What work costs: core-milliseconds at a rate that rises with the backlog. Integers throughout; money is in millionths of a credit."""

from typing import Final

from nexus_edge.types import MicroCredits
from nexus_edge.wire.limits import AMOUNT
from nexus_edge.wire.objects import Mode

RATE: Final = 1000
"""Micro-credits a core-second: one for each core-millisecond, so that a price exists without a market."""
BACKLOG_FULL_MS: Final = 60_000
"""The backlog a slot at which work costs most: a minute, about as long as an interactive requester waits."""
SURGE_PERMILLE: Final = 3000
"""How much the highest price exceeds the lowest: one to four times."""


def core_ms(mode: Mode, run: int, prove: int, p_ppm: int = 0) -> int:
    """The expected work of a job in core-milliseconds, from the core-milliseconds of running and proving."""
    match mode:
        case Mode.PROVED | Mode.DEFERRED:
            return run + prove
        case Mode.SAMPLED:
            return run + _ceil(prove * p_ppm, 1_000_000)


def multiplier(backlog_ms: int, slots: int) -> int:
    """What the backlog multiplies prices by, in permille: 1000 when idle, rising with its square to 4000."""
    load = min(1000, 1000 * max(0, backlog_ms) // (BACKLOG_FULL_MS * max(1, slots)))
    return 1000 + SURGE_PERMILLE * load * load // 1_000_000


def price(work_core_ms: int, rate: int = RATE, *, backlog_ms: int = 0, slots: int = 1) -> MicroCredits:
    """The price of some work. At least one, and never above what an amount can hold."""
    return MicroCredits(max(1, min(AMOUNT, _ceil(work_core_ms * rate * multiplier(backlog_ms, slots), 1_000_000))))


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
