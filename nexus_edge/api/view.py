"""What the admin API needs of an agent."""

from collections.abc import AsyncIterator
from typing import Protocol

from nexus_edge.api.models import (
    Audit,
    DeedRequest,
    DeedView,
    DrainRequest,
    GrantRequest,
    JobView,
    LedgerView,
    ModelView,
    PeerView,
    ProofView,
    RunRequest,
    Snapshot,
)


class AgentView(Protocol):
    """The agent as its administrators see it. Every method may raise a `NexusEdgeError`, which reaches the one who asked.

    `job` ids are as people give them: whole, or `j-` and the beginning. An id that fits no job, or several, raises `UsageError`.
    """

    async def snapshot(self) -> Snapshot:
        """Everything at a glance. `seq` rises with each."""

    async def jobs(self) -> tuple[JobView, ...]:
        """All jobs that are kept, newest first."""

    async def job(self, job: str) -> JobView:
        """One job with its timeline."""

    async def output(self, job: str) -> bytes:
        """The verified answer of a job that was asked for here, as a `.npy` or `.npz` file. Raises `JobFailed` if there is none."""

    async def peers(self) -> tuple[PeerView, ...]:
        """All peers."""

    async def proofs(self) -> tuple[ProofView, ...]:
        """All proofs that are kept, newest first."""

    async def ledger(self) -> LedgerView:
        """The books and the newest entries."""

    async def import_model(self, content: AsyncIterator[bytes], name: str) -> ModelView:
        """Bring a model, whose file comes in pieces, to stay."""

    async def submit(self, request: RunRequest) -> JobView:
        """Begin a job. What it costs is reserved when a worker is chosen."""

    async def cancel(self, job: str) -> JobView:
        """Stop a job; what it owes then, its view says."""

    async def grant(self, request: GrantRequest) -> str:
        """Set what is lent to a peer; returns a sentence."""

    async def deed(self, request: DeedRequest) -> DeedView:
        """Write down what owners settled between themselves."""

    async def drain(self, request: DrainRequest) -> str:
        """Stop or resume taking work; returns a sentence."""

    async def shutdown(self) -> str:
        """Begin to stop; returns a sentence at once."""

    async def audit(self, audit: Audit) -> None:
        """Keep who asked for what, before it is done. If this raises, it is not done."""
