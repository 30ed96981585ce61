"""How long answers are kept: inputs and outputs a day after their job has ended, proofs a month."""

from collections.abc import Iterable, Iterator

from nexus_edge.ledger import BlobStore
from nexus_edge.market.jobs import Job
from nexus_edge.market.leases import LeaseState
from nexus_edge.types import Digest, UnixMs
from nexus_edge.wire.limits import PROOF_KEPT_MS, RESULT_KEPT_MS


async def sweep(blobs: BlobStore, jobs: Iterable[Job], leases: Iterable[LeaseState], now: UnixMs) -> None:
    """Delete what nobody will ask for any more. Content of jobs that have not ended stays, however old they are."""
    states: list[Job | LeaseState] = [*jobs, *leases]
    kept = {digest for state in states for digest, until in _contents(state) if until is None or until > now}
    for state in states:
        for digest, until in _contents(state):
            if until is not None and until <= now and digest not in kept:
                await blobs.drop(digest)


def _contents(state: Job | LeaseState) -> Iterator[tuple[Digest, int | None]]:
    """Digests of a job or lease, and until when each is kept; None for ever."""
    parts = state.attempts if isinstance(state, Job) else (state,)
    found = [(state.input, RESULT_KEPT_MS)]
    found += [(part.output, RESULT_KEPT_MS) for part in parts] + [(part.proof, PROOF_KEPT_MS) for part in parts]
    for digest, kept_ms in found:
        if digest is not None:
            yield digest, None if state.ended is None else state.ended + kept_ms
