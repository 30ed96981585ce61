"""What a command returns, and how it measures itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nexus_edge.errors import NexusEdgeError


@dataclass(frozen=True)
class Result:
    """What a command found: one object for `--json`, lines for people, and what went wrong after all."""

    data: dict[str, Any]
    lines: list[str]
    error: NexusEdgeError | None = None


@dataclass
class Stopwatch:
    """Times steps in milliseconds."""

    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step, also when it fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] = 1000 * (time.perf_counter() - started)

    def fields(self) -> dict[str, float]:
        """For JSON."""
        return {f"{step}_ms": ms for step, ms in self.ms.items()}
