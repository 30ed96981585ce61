"""How busy this machine's processors are, in samples of what its kernel counts."""

import asyncio
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

from nexus_edge.compute.machine import PROC

SAMPLE_S: Final = 2.0
SAMPLES: Final = 60
"""The last two minutes: what a screen shows."""
_BUSY: Final = 8
"""Fields of the kernel's line that add up: user, nice, system, idle, iowait, irq, softirq, steal. Guests' time is in user's."""


class Times(NamedTuple):
    """Ticks of all processors together since the machine started."""

    busy: int
    whole: int


class Load:
    """The last samples: shares of the processors' time in which they had something to do."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._before: Times | None = None

    @property
    def samples(self) -> tuple[float, ...]:
        """In [0, 1], `SAMPLE_S` apart, the newest last; none where the kernel does not tell."""
        return tuple(self._samples)

    def sample(self) -> None:
        """Add one: since the last call. The first call only begins."""
        before, self._before = self._before, processor_times(self._proc)
        if before is None or self._before is None:
            return
        whole = self._before.whole - before.whole
        if whole > 0:  # counters of a virtual machine that was moved may go back
            self._samples.append(min(1.0, max(0.0, (self._before.busy - before.busy) / whole)))

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.to_thread(self.sample)
            await asyncio.sleep(SAMPLE_S)


def processor_times(proc: Path = PROC) -> Times | None:
    """What the processors have done so far; None where the kernel does not tell."""
    try:
        with (proc / "stat").open(encoding="ascii") as file:
            name, *fields = file.readline().split()
        ticks = [int(field) for field in fields[:_BUSY]]
    except (OSError, ValueError):
        return None
    if name != "cpu" or len(ticks) < 5:
        return None
    return Times(sum(ticks) - ticks[3] - ticks[4], sum(ticks))
