"""What is known of an open lease besides its events."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nexus_edge.identity import NodeKey
from nexus_edge.market.quoting import Forecast
from nexus_edge.types import Digest, TensorCommitment
from nexus_edge.wire.messages import InputUpload, LeaseEvent
from nexus_edge.wire.refusals import clipped

READING: Final = "load"
"""The phase of a child that reads a model and commits to it: once for many jobs, and in no forecast."""
BEFORE_PROVING: Final = (READING, "execute")
"""Phases of a child before it proves."""
UNASKED_S: Final = 5.0
"""How long work goes on before a requester that never asks owes the start fee: a requester asks right before it cancels."""
INPUT_GRACE_S: Final = 30.0
"""How long an input may take beyond its size over the slowest line that is served."""


@dataclass
class Work:
    """What is known of an open lease besides its events: lost with the process, and not missed."""

    accepted: float
    """On the monotonic clock."""
    account: bytes | str
    """On whose account it is open: the requester's or its fleet's, or for one without a line that of all at its prefix."""
    prefix: str = ""
    line: int = 0
    """What it weighed when it came: what the requester is lent for its own sake, or its fleet."""
    cost: int = 0
    """Forecast core-milliseconds."""
    patience_s: float = INPUT_GRACE_S
    """How long its input may take."""
    forecast: Forecast | None = None
    began: float | None = None
    """When work on it was first heard of, on the monotonic clock: that stands, whatever has to be done again."""
    run_began: float | None = None
    """When the run that is under way began: after its model was read."""
    phase: str = ""
    done_ppm: int = 0
    beat: int = 0
    told: bool = False
    """Whether its requester was told that it runs."""
    polled: float = field(default_factory=time.monotonic)
    steps: list[LeaseEvent] = field(default_factory=list)
    upload: InputUpload | None = None
    """An input that is not large, since it came, until it has run: work begins while it is being written."""
    commitments: tuple[TensorCommitment, ...] = ()
    """To `upload`, as they were checked."""
    cancel: Callable[[], object] | None = None
    """Stops it, while it runs."""

    @property
    def costs_fee(self) -> bool:
        """Whether its requester owes the start fee if it cancels: it was told that the work has begun, or did not care to ask for a while."""
        return self.told or (self.began is not None and time.monotonic() - self.began > UNASKED_S)

    def progress(self, phase: str, done_ppm: int) -> None:
        """The prover says how far it is."""
        if phase != self.phase:
            self.step("executing" if phase in BEFORE_PROVING else "proving", phase)
        now = time.monotonic()
        self.began = now if self.began is None else self.began
        if phase == READING:
            self.run_began = None
        elif self.run_began is None:
            self.run_began = now
        self.phase, self.done_ppm, self.beat = phase, done_ppm, self.beat + 1

    def step(self, kind: str, detail: str = "") -> None:
        """Note an event for those who poll."""
        self.steps.append(LeaseEvent(len(self.steps) + 1, int(1000 * (time.monotonic() - self.accepted)), kind, clipped(detail, 200)))


def output_seed(key: NodeKey, lease: Digest, inc: Digest) -> bytes:
    """Of the commitment to a lease's output: nobody else can derive it, and running the job again gives the same. The input decides the output."""
    return key.secret("output commitment", lease, inc)
