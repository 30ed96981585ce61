"""How often one may ask: token buckets, a bounded number of them."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

BUCKETS: Final = 4096
"""Those who asked last. To be forgotten behind so many others brings nobody more than a new id or address would: a full bucket."""


class Rates:
    """A token bucket for each key."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable) -> float:
        """Take a token: 0, or how many seconds until there is one."""
        now = self._clock()
        tokens, at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_s)
        wait = max(0.0, (1 - tokens) / self._per_s)
        self._buckets[key] = (tokens if wait else tokens - 1, now)
        if len(self._buckets) > BUCKETS:
            self._buckets.popitem(last=False)
        return wait

    def give(self, key: Hashable, tokens: float) -> None:
        """Put some back, as far as the bucket holds them."""
        if key in self._buckets:
            left, at = self._buckets[key]
            self._buckets[key] = (min(self._burst, left + tokens), at)

    def charge(self, key: Hashable, tokens: float) -> None:
        """Take some more for what was just served, though they may not be there yet: they are waited for before the next."""
        if key in self._buckets:
            left, at = self._buckets[key]
            self._buckets[key] = (left - tokens, at)


class Once:
    """Which keys are new, among the last so many."""

    def __init__(self, most: int = BUCKETS) -> None:
        self._most = most
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    def __call__(self, key: Hashable) -> bool:
        """Whether it is; from now on it is not."""
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return True
