"""What a requester remembers of workers: experience, and who is excluded. Rebuilt from the jobs after a restart."""

from typing import Final

from nexus_edge.clock import now_ms
from nexus_edge.market.buying import Known
from nexus_edge.market.experience import Experience
from nexus_edge.market.jobs import Attempt, Job, Outcome
from nexus_edge.types import MicroCredits, NodeId, UnixMs

EXCLUDED_MS: Final = 90 * 86_400_000
"""How long a worker with a false proof gets no job."""


class Workers:
    """The memory of one requester."""

    def __init__(self) -> None:
        self.experience: dict[NodeId, Experience] = {}
        self._false: dict[NodeId, UnixMs] = {}
        """When each was last seen with a false proof."""

    def learn(self, attempt: Attempt, at: UnixMs, claimed_ms: int, took_ms: int) -> None:
        """An attempt has ended. What was declined says nothing about the worker."""
        before = self.experience.get(attempt.worker, Experience())
        match attempt.outcome:
            case Outcome.VERIFIED:
                self.experience[attempt.worker] = before.succeeded(at, claimed_ms, took_ms or claimed_ms)
            case Outcome.LOST | Outcome.FAILED | Outcome.INVALID:
                self.experience[attempt.worker] = before.failed(at)
        if attempt.outcome is Outcome.INVALID:
            self._false[attempt.worker] = max(at, self._false.get(attempt.worker, at))

    def excludes(self, peer: NodeId) -> bool:
        """Whether a peer has sent us a false proof within 90 days."""
        return peer in self._false and now_ms() - self._false[peer] < EXCLUDED_MS

    def known(self, worker: NodeId, owed: int, job: Job, *, trusted: bool) -> Known:
        """For the placement of a job; `owed` is what the worker owes us, `trusted` that it need not prove itself first."""
        experience = self.experience.get(worker, Experience()).seen(now_ms())
        tried = any(attempt.worker == worker for attempt in job.attempts)
        return Known(experience, MicroCredits(owed), self.excludes(worker), tried, trusted)
