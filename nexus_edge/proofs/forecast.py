"""What a proof will cost, before it is made.

Time and memory grow linearly with the cells and lookups of a program. The constants are fitted to proofs of real models on one core with
AVX-512 (`benches/models.py`); other machines differ. The size of a proof depends on the program only, and is known exactly.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

FIXED_MS = 3.0
NS_PER_CELL = 110  # execute, fill, encode, hash, open
NS_PER_LOOKUP = 165
NS_PER_WEIGHT = 16
FIXED_BYTES = 85_000_000
BYTES_PER_CELL = 145


class Forecast(TypedDict):
    """Time and memory are estimates, not promises."""

    prove_ms: float
    memory_bytes: int
    proof_bytes: int


def forecast(described: Mapping[str, Any]) -> Forecast:
    """The cost of one proof, on one core, of the program that `VerifyingKey.describe` describes."""
    work_ns = NS_PER_CELL * described["cells"] + NS_PER_LOOKUP * described["lookups"] + NS_PER_WEIGHT * described["weights"]
    return Forecast(
        prove_ms=FIXED_MS + work_ns / 1e6,
        memory_bytes=FIXED_BYTES + BYTES_PER_CELL * described["cells"],
        proof_bytes=described["proof_bytes"],
    )
