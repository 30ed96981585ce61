"""What a user orders, what checks the answer, and what is known of a job while it lives."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol

from nexus_edge.market.buying import Choice
from nexus_edge.market.placement import Rejected
from nexus_edge.types import Digest, MicroCredits, ModelDigest, NodeId
from nexus_edge.wire.messages import InputUpload, LeaseStatus
from nexus_edge.wire.objects import OutputMode, ProofNotice, Quote, Result
from nexus_edge.wire.signing import Signed


@dataclass(frozen=True)
class Order:
    """What a user wants."""

    model: ModelDigest
    sem: str
    params: str
    data: bytes
    """The inputs as little-endian integers in the model's order."""
    max_price: MicroCredits
    deadline_ms: int
    worker: NodeId | None = None
    outm: OutputMode = OutputMode.CLEAR


class Checks(Protocol):
    """Commitments and verification."""

    async def commit(self, model: ModelDigest, data: bytes) -> tuple[Digest, InputUpload]:
        """A fresh commitment to an input, and what a worker needs to open it in one proof. Raises `BadInput`."""

    async def verifying_key(self, model: ModelDigest) -> bytes:
        """The key that answers about a model are verified by. Raises `StoreError`."""

    def answer_bytes(self, model: ModelDigest) -> int:
        """About how long output and proof of an answer are together; the most that they may be for a model that is not here."""

    async def verify(
        self,
        model: ModelDigest,
        params: str,
        inc: Digest,
        result: Result,
        notice: ProofNotice,
        output: bytes,
        proof: bytes,
        seed: bytes | None,
    ) -> None:
        """Raise `ProofRejected` unless the proof shows this output of this model on this input for this lease.

        `seed` opens a committed output; `OpeningError` says that it is missing.
        """


@dataclass(frozen=True)
class Verdict:
    """What verification said of an answer."""

    refused: str
    """Why it is refused; empty if it holds."""
    unable: str
    """Why nobody here can tell; empty if one can."""
    began: float
    """On the monotonic clock."""
    took_ms: int

    @property
    def holds(self) -> bool:
        """Whether the answer is what was ordered."""
        return not (self.refused or self.unable)


@dataclass
class Live:
    """What is known of a job besides its events."""

    choosing: "asyncio.Task[Choice] | None" = None
    """The first search for a worker, under way since the order came: no quote depends on the input's commitment."""
    upload: InputUpload | None = None
    """A small input, until it was offered once: what the order came with."""
    began: float = field(default_factory=time.monotonic)
    status: LeaseStatus | None = None
    heard: float = 0.0
    """When `status` came, on the monotonic clock."""
    suspect: bool = False
    unanswered: str = ""
    """Why the worker did not answer when it was asked last."""
    quote: Signed[Quote] | None = None
    accepted: float = 0.0
    given: bool = False
    """Whether the worker of the attempt has the input."""
    rejected: tuple[Rejected, ...] = ()
    verdict: Verdict | None = None
    """Of the answer that is delivered; not kept, since it can be found again."""
    task: asyncio.Task[None] | None = None

    def left_ms(self, now: float) -> int | None:
        """What is left of the time that the worker last forecast, at `now` of the monotonic clock; None if it named none, or is over it."""
        if self.status is None or self.status.eta_ms is None or self.suspect:
            return None
        left = self.status.eta_ms - round(1000 * (now - self.heard))
        return left if left > 0 else None
