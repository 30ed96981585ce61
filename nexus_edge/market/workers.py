"""What a requester remembers of workers: experience, and who is excluded. Written with each attempt's end, and not made again from old jobs.

Times are the node's age: a clock that is set wrong forgets nobody's work, and ends no exclusion.
"""

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Final

from nexus_edge.ledger import Ledger, Transaction
from nexus_edge.market.buying import Known
from nexus_edge.market.experience import Experience
from nexus_edge.market.jobs import Job, Outcome
from nexus_edge.types import MicroCredits, NodeId, UnixMs
from nexus_edge.wire.cbor import Value

EXCLUDED_MS: Final = 90 * 86_400_000
"""How long a worker with a false proof gets no job."""

_STREAM: Final = "worker"
_BEGUN: Final = b""
"""The subject that says that all jobs are remembered. Without it the ledger is new, or of a former version, which remembered none."""


@dataclass(frozen=True)
class _Memory:
    """Of one worker."""

    experience: Experience = field(default_factory=Experience)
    false: UnixMs | None = None
    """When it was last seen with a false proof."""

    def after(self, outcome: Outcome, at: UnixMs, claimed_ms: int, took_ms: int) -> "_Memory":
        """When one more attempt has ended. What was declined says nothing about the worker."""
        match outcome:
            case Outcome.VERIFIED:
                return replace(self, experience=self.experience.succeeded(at, claimed_ms, took_ms or claimed_ms))
            case Outcome.LOST | Outcome.FAILED:
                return replace(self, experience=self.experience.failed(at))
            case Outcome.INVALID:
                return _Memory(self.experience.failed(at), at if self.false is None else max(at, self.false))
            case _:
                return self

    def body(self) -> dict[str, Value]:
        """For the ledger."""
        return {"experience": list(astuple(self.experience)), "false": self.false}

    @classmethod
    def of(cls, body: Mapping[str, Any] | None) -> "_Memory":
        """From the ledger."""
        return cls() if body is None else cls(Experience(*body["experience"]), body["false"])


class Workers:
    """The memory of one requester."""

    def __init__(self, ledger: Ledger) -> None:
        self._age: Callable[[], UnixMs] = ledger.age
        self._ledger = ledger
        self._known: dict[NodeId, _Memory] = {}

    @property
    def experience(self) -> Mapping[NodeId, Experience]:
        """Of every worker that ended an attempt."""
        return {worker: memory.experience for worker, memory in self._known.items()}

    async def load(self, jobs: Callable[[], list[Job]]) -> None:
        """Read what is remembered; of a ledger of a former version, make it from its jobs."""
        found = await self._ledger.read(lambda reader: reader.memories(_STREAM))
        if _BEGUN in found:
            self._known = {NodeId(worker): _Memory.of(body) for worker, body in found.items() if worker != _BEGUN}
            return
        for job in sorted(jobs(), key=lambda one: one.at):
            for attempt in job.attempts:
                self.learn(attempt.worker, attempt.outcome, 0, 0, at=job.ended or job.at)
        await self._ledger.transact("worker:begun", self._begin)

    def _begin(self, transaction: Transaction) -> None:
        for worker, memory in self._known.items():
            transaction.remember(_STREAM, worker, memory.body())
        transaction.remember(_STREAM, _BEGUN, {})

    def note(self, worker: NodeId, outcome: Outcome, claimed_ms: int, took_ms: int, transaction: Transaction) -> None:
        """Write that an attempt has ended, with the event that says so; `learn` follows when both are on the disk."""
        memory = _Memory.of(transaction.memory(_STREAM, worker)).after(outcome, transaction.age, claimed_ms, took_ms)
        transaction.remember(_STREAM, worker, memory.body())

    def learn(self, worker: NodeId, outcome: Outcome, claimed_ms: int, took_ms: int, *, at: UnixMs | None = None) -> None:
        """An attempt has ended."""
        before = self._known.get(worker, _Memory())
        after = before.after(outcome, self._age() if at is None else at, claimed_ms, took_ms)
        if after is not before:
            self._known[worker] = after

    def excludes(self, peer: NodeId) -> bool:
        """Whether a peer has sent us a false proof within 90 days."""
        memory = self._known.get(peer)
        return memory is not None and memory.false is not None and self._age() - memory.false < EXCLUDED_MS

    def known(self, worker: NodeId, owed: int, job: Job, *, trusted: bool) -> Known:
        """For the placement of a job; `owed` is what the worker owes us, `trusted` that it need not prove itself first."""
        experience = self._known.get(worker, _Memory()).experience.seen(self._age())
        tried = any(attempt.worker == worker for attempt in job.attempts)
        return Known(experience, MicroCredits(owed), self.excludes(worker), tried, trusted)
