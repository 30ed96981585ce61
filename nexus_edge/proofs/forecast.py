"""What a proof will cost, before it is made.

    time    = fixed + 35 ns a cell + 40 ns a lookup + 16 ns a committed weight        on one core
    memory  = fixed + 56 bytes a cell + 16 bytes a weight

The constants are the cost model of the protocol; `benches/` compares them with measurements. The size of a proof is known exactly.
"""

from collections.abc import Mapping
from typing import Any, TypedDict


class Forecast(TypedDict):
    """Time and memory are estimates, not promises."""

    prove_ms: float
    memory_bytes: int
    proof_bytes: int


def forecast(described: Mapping[str, Any]) -> Forecast:
    """The cost of one proof of the program that `VerifyingKey.describe` describes."""
    cells, lookups, weights = described["cells"], described["lookups"], described["weights"]
    return Forecast(
        prove_ms=11 + (35 * cells + 40 * lookups + 16 * weights) / 1e6,
        memory_bytes=60_000_000 + 56 * cells + 16 * weights,
        proof_bytes=described["proof_bytes"],
    )
