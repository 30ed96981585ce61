"""How work in a child, and the model store, can fail."""

from enum import StrEnum

from nexus_edge.errors import FileError, NexusEdgeError
from nexus_edge.types import Bytes

MIB = 1 << 20


class Failure(StrEnum):
    """Why a child gave no answer."""

    MEMORY = "memory"
    """It needed more than it was allowed, or than the machine has."""
    CRASH = "crash"
    """It died, or said something that makes no sense."""
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    ERROR = "error"
    """The task raised an exception that nobody expected: a bug."""


class ChildFailed(NexusEdgeError):
    """A task ended without an answer. `forecast` is the memory that it was said to need, `limit` what it was allowed, where it had a limit."""

    def __init__(self, reason: Failure, why: str, *, forecast: Bytes | None = None, limit: Bytes | None = None) -> None:
        if reason is Failure.MEMORY and forecast is not None and limit is not None:
            why = f"{why}; forecast {forecast / MIB:.0f} MiB, allowed {limit / MIB:.0f} MiB"
        super().__init__(f"the work failed ({reason.value})", why)
        self.reason = reason
        self.forecast = forecast
        self.limit = limit


class StoreError(NexusEdgeError):
    """The model store cannot keep or give what was asked for."""


class StoreFull(StoreError, FileError):
    """There is no room: the disk is full, or the store's own bound is reached by models that are in use."""


class ModelDamaged(StoreError):
    """What is on the disk is not what was stored. It is not offered any more."""


class ModelMissing(StoreError):
    """No such model is here."""


class BadUpload(StoreError):
    """A peer's upload is not what its manifest says, or does not make the model that it was to be."""
