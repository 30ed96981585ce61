"""What is known of a model that is here: what it is, what a job of it was forecast to take, and what jobs really took."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from nexus_edge.types import Bytes, Digest, ModelDigest
from nexus_edge.wire.cbor import decode, encode
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import MIB

SHARE: Final = 4
"""A new measurement counts a quarter: a machine that became slower is noticed after a few jobs, one odd job moves little."""
RECORD_LIMIT: Final = MIB  # the description of a model of thousands of operators
_VERSION: Final = 2
"""Also that of the proof system: with it a model's digest changes, and a record of an earlier one describes nothing that can be proved."""


@dataclass(frozen=True)
class Forecast:
    """What one job takes, in microseconds and bytes: `core_` of all cores together."""

    run_us: int
    core_run_us: int
    prove_us: int
    core_prove_us: int
    memory: Bytes
    """The most that its process holds."""
    proof_bytes: int
    phases_us: tuple[tuple[str, int], ...] = ()
    """What it is made of, in the order in which progress names it; empty before the first proof since the start."""


@dataclass(frozen=True)
class Measured:
    """Averages of what jobs took, the last ones most."""

    jobs: int
    run_us: int
    core_run_us: int
    prove_us: int
    core_prove_us: int
    memory: Bytes

    def after(self, job: "Measured") -> "Measured":
        """With one more job. Memory rises at once, since too little of it kills, and falls slowly."""
        mean = {
            name: old + (getattr(job, name) - old) // SHARE
            for name, old in asdict(self).items()
            if name != "jobs"
        }  # fmt: skip
        return Measured(**{**mean, "jobs": self.jobs + 1, "memory": max(job.memory, mean["memory"])})

    def to_bytes(self) -> bytes:
        """For the disk."""
        return encode({"v": _VERSION, **asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Measured":
        """Raises `BadObject`."""
        return cls(**_fields(data, cls))


@dataclass(frozen=True)
class ModelRecord:
    """A model under one parameter set, which is part of its digest."""

    model: ModelDigest
    program: Digest
    """The store's object."""
    program_bytes: int
    params: str
    name: str
    semantics: str
    described: str
    """JSON of ports, operators and sizes."""
    input_bytes: int
    output_bytes: int
    kept: bool
    """Whether the owner brought it here: then it is not evicted."""
    run_us: int
    core_run_us: int
    prove_ms: int
    memory: Bytes
    proof_bytes: int

    def forecast(self, measured: Measured | None) -> Forecast:
        """What a job will take: what jobs took, or before the first one what the program's size says."""
        if measured is None:
            prove_us = 1000 * self.prove_ms
            return Forecast(self.run_us, self.core_run_us, prove_us, prove_us, self.memory, self.proof_bytes)
        return Forecast(measured.run_us, measured.core_run_us, measured.prove_us, measured.core_prove_us, measured.memory, self.proof_bytes)

    def keeping(self) -> "ModelRecord":
        """Of a model that its owner wants here."""
        return replace(self, kept=True)

    def to_bytes(self) -> bytes:
        """For the disk."""
        return encode({"v": _VERSION, **asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> "ModelRecord":
        """Raises `BadObject`."""
        return cls(**_fields(data, cls))


def _fields(data: bytes, kind: type[Any]) -> dict[str, Any]:
    """The fields of a dataclass of plain types. Raises `BadObject`."""
    value = decode(data, RECORD_LIMIT)
    wanted: dict[str, Any] = kind.__annotations__
    if not isinstance(value, Mapping) or set(value) != {"v", *wanted} or value["v"] != _VERSION:
        raise BadObject("it is not a record of this version")
    for name, hint in wanted.items():
        plain = getattr(hint, "__supertype__", hint)
        while hasattr(plain, "__supertype__"):
            plain = plain.__supertype__
        if type(value[name]) is not plain:
            raise BadObject(f"its {name} is not of type {plain.__name__}")
    return {name: value[name] for name in wanted}
