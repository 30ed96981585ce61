"""How long answers are kept: inputs and outputs a day after their job has ended or waits for its payment, proofs a month."""

from collections.abc import Iterable, Iterator
from typing import Final

from nexus_edge.ledger import BlobStore
from nexus_edge.market.jobs import Attempt, Job
from nexus_edge.market.leases import LeaseState
from nexus_edge.types import Digest, UnixMs
from nexus_edge.wire.limits import PROOF_KEPT_MS, RESULT_KEPT_MS

FRESH_S: Final = 3600.0
"""Content this young stays: somebody who has just kept it, or the same again, may not have written down yet what for."""


async def sweep(blobs: BlobStore, jobs: Iterable[Job], leases: Iterable[LeaseState], now: UnixMs) -> None:
    """Delete what nobody will ask for any more. Content of jobs that have not ended stays, however old they are."""
    states: list[Job | LeaseState] = [*jobs, *leases]
    wanted = {digest for state in states for digest, until in _contents(state) if until is None or until > now}
    done = {digest for state in states for digest, until in _contents(state) if until is not None and until <= now}
    # What no job names any more: proofs of those that are left to the ledger, and what a crash left behind.
    done.update(await blobs.unused(PROOF_KEPT_MS / 1000))
    for digest in done - wanted:
        await blobs.drop(digest, unused_s=FRESH_S)


def _contents(state: Job | LeaseState) -> Iterator[tuple[Digest, int | None]]:
    """Digests of a job or lease, and until when each is kept; None for ever."""
    parts: tuple[Attempt | LeaseState, ...] = state.attempts if isinstance(state, Job) else (state,)
    # A result that is not fetched, or fetched and never paid, is not kept longer than one that is paid.
    since = state.ended if isinstance(state, Job) else state.ended or state.delivered
    found = [(state.input, RESULT_KEPT_MS)]
    found += [(part.output, RESULT_KEPT_MS) for part in parts] + [(part.proof, PROOF_KEPT_MS) for part in parts]
    for digest, kept_ms in found:
        if digest is not None:
            yield digest, None if since is None else since + kept_ms
