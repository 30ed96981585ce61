"""How long what is under way still takes: forecasts, each corrected by how its run went so far. Nothing here is a promise."""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nexus_edge.market.quoting import Forecast
from nexus_edge.market.work import Work
from nexus_edge.types import Digest

PPM: Final = 1_000_000
UNKNOWN: Final = math.inf


@dataclass(frozen=True)
class Outlook:
    """When leases will be done, and when the next could begin."""

    left_ms: Mapping[Digest, int]
    """Of each open lease for which there is something to base it on."""
    free_ms: int | None
    """Until one more job could begin: 0 if at once, None if there is nothing to base it on."""


def outlook(slots: int, work: Iterable[tuple[Digest, Work]], now: float) -> Outlook:
    """Of leases whose inputs are here, on so many slots, at `now` of the monotonic clock.

    Those that wait are taken to run in the order in which they came. The queue may let an account with a larger line go first.
    """
    running: list[tuple[Digest, Work]] = []
    waiting: list[tuple[Digest, Work]] = []
    for lease, one in work:
        (waiting if one.cancel is None else running).append((lease, one))
    waiting.sort(key=lambda pair: pair[1].accepted)
    lefts = {lease: left_ms(one, now) for lease, one in running}
    ends, free = _planned(slots, list(lefts.values()), [_whole_ms(one.forecast) for _, one in waiting])
    lefts.update({lease: end for (lease, _), end in zip(waiting, ends, strict=True)})
    return Outlook({lease: left for lease, left in lefts.items() if left is not None}, free)


def left_ms(work: Work, now: float) -> int | None:
    """Until a run that has begun is over, at `now` of the monotonic clock; None if there is nothing to base it on.

    What was forecast for the rest, times how this run differed so far, which counts as much as the part of the run that is over. Before
    the first proof of a model here nobody knows how its phases compare: then what is left is the forecast less the time that went by.
    """
    if work.forecast is None or work.run_began is None:
        return None
    elapsed_ms, whole_ms = 1000 * (now - work.run_began), _whole_ms(work.forecast)
    done = _done(work.forecast.phases_us, work.phase, work.done_ppm)
    if done is None:
        left = whole_ms - elapsed_ms
        return math.ceil(left) if left > 0 else None
    # (1 - done) * whole * ((1 - done) * 1 + done * pace), where pace = elapsed / (done * whole)
    return math.ceil((1 - done) * ((1 - done) * whole_ms + elapsed_ms))


def _whole_ms(forecast: Forecast | None) -> float:
    if forecast is None:
        return UNKNOWN
    return sum(us for _, us in forecast.phases_us) / 1000 or float(forecast.run_ms + forecast.prove_ms)


def _done(phases: Sequence[tuple[str, int]], phase: str, ppm: int) -> float | None:
    """The share of a run's time that is over; None if the phases of a run are not known."""
    whole = sum(us for _, us in phases)
    before = 0
    for name, us in phases:
        if name == phase:
            return (before + us * min(ppm, PPM) / PPM) / whole if whole else None
        before += us
    return None


def _planned(slots: int, running: Sequence[int | None], waiting: Sequence[float]) -> tuple[list[int | None], int | None]:
    """When those that wait will be done, each on the slot that is free first, and when a slot is free after them."""
    free = [UNKNOWN if left is None else float(left) for left in running]
    free += [0.0] * (slots - len(running))
    heapq.heapify(free)
    ends = [heapq.heapreplace(free, free[0] + took) + took for took in waiting]
    return [_known(end) for end in ends], _known(free[0])


def _known(ms: float) -> int | None:
    return None if ms == UNKNOWN else math.ceil(ms)
