"""What time it is: for what is signed and shown. How long something takes is asked of `time.monotonic`."""

import time
from typing import Final

from nexus_edge.types import UnixMs

SUSPENDED_S: Final = 1.0
"""A suspend that is shorter is none."""


def now_ms() -> UnixMs:
    """Milliseconds since 1970, as this machine's clock has it: it may be wrong, and may be set while we run."""
    return UnixMs(time.time_ns() // 1_000_000)


def ticking_ms() -> UnixMs:
    """The same as it was when this process started, and how long that is ago: nobody sets it, so quotes age as they should."""
    return UnixMs((_STARTED + _elapsed()) // 1_000_000)


def up_ms() -> int:
    """Milliseconds that this machine has been up and awake: only differences mean something."""
    return time.monotonic_ns() // 1_000_000


def asleep_s() -> float:
    """How long the machine has been suspended since it started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic() if hasattr(time, "CLOCK_BOOTTIME") else 0.0


def set_by_s() -> float:
    """What the clock shows beyond the time since the machine started: it changes when somebody sets the clock, as after a snapshot is resumed."""
    return (time.time_ns() - _elapsed()) / 1e9


def _elapsed() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns()


_STARTED: Final = time.time_ns() - _elapsed()
