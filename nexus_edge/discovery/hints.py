"""Bounds what has been named but never answered: anyone on a network can name a thousand peers."""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

UNPROVEN: Final = 1024
"""In all. A probe of one that does not answer takes seconds, so more would only wait."""
UNPROVEN_PER_PREFIX: Final = 64
"""As many records of one prefix as section 10 of the protocol lets the DHT store: containers of one host are that many."""

K = TypeVar("K", bound=Hashable)


class Unproven(Generic[K]):
    """Keys by the prefix of the address they were named at. Of too many, the oldest of the prefix that has most goes."""

    def __init__(self) -> None:
        self._prefix: dict[K, str] = {}
        self._keys: dict[str, dict[K, None]] = {}

    def __len__(self) -> int:
        return len(self._prefix)

    def add(self, key: K, prefix: str) -> K | None:
        """Take a key, and name the one that has to go for it. A key that is known stays where it was first named."""
        if key in self._prefix:
            return None
        out: K | None = None
        if len(self._keys.get(prefix, ())) >= UNPROVEN_PER_PREFIX:
            out = next(iter(self._keys[prefix]))
        elif len(self._prefix) >= UNPROVEN:
            out = next(iter(self._keys[max(self._keys, key=lambda one: len(self._keys[one]))]))
        if out is not None:
            self.discard(out)
        self._prefix[key] = prefix
        self._keys.setdefault(prefix, {})[key] = None
        return out

    def discard(self, key: K) -> None:
        """It answered, or is forgotten."""
        prefix = self._prefix.pop(key, None)
        if prefix is None:
            return
        del self._keys[prefix][key]
        if not self._keys[prefix]:
            del self._keys[prefix]
