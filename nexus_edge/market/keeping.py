"""How long answers are kept: inputs and outputs a day after their job has ended or waits for its payment, proofs a month.

A worker needs an input no longer than it works. A day of the node's age (`nexus_edge.ledger.age`): time in which it was up, and what was
promised could have been fetched.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from nexus_edge.ledger import BlobStore
from nexus_edge.market.jobs import Attempt, Job
from nexus_edge.market.leases import LeaseState
from nexus_edge.market.machines import Aged
from nexus_edge.types import Digest
from nexus_edge.wire.limits import PROOF_KEPT_MS, RESULT_KEPT_MS

FRESH_S: Final = 3600.0
"""Content this young stays: somebody who has just kept it, or the same again, may not have written down yet what for."""


async def sweep(blobs: BlobStore, jobs: Iterable[Aged[Job]], leases: Iterable[Aged[LeaseState]]) -> None:
    """Delete what nobody will ask for any more. Content of jobs that have not ended stays, however old they are."""
    aged: list[Aged[Job] | Aged[LeaseState]] = [*jobs, *leases]
    found = [(digest, over_ms is None or over_ms < kept_ms) for state, over_ms in aged for digest, kept_ms in contents(state)]
    wanted = {digest for digest, is_wanted in found if is_wanted}
    done = {digest for digest, is_wanted in found if not is_wanted}
    # What no job names any more: proofs of those that are left to the ledger, and what a crash left behind.
    done.update(await blobs.unused(PROOF_KEPT_MS / 1000))
    for digest in done - wanted:
        await blobs.drop(digest, unused_s=FRESH_S)


def contents(state: Job | LeaseState) -> Iterator[tuple[Digest, int]]:
    """Digests of a job or lease, and how long each is kept when that is over.

    A result that is not fetched, or fetched and never paid, is not kept longer than one that is paid.
    """
    parts: tuple[Attempt | LeaseState, ...] = state.attempts if isinstance(state, Job) else (state,)
    found = [(state.input, RESULT_KEPT_MS if isinstance(state, Job) else 0)]
    found += [(one, RESULT_KEPT_MS) for one in (state.former_inputs if isinstance(state, Job) else ())]
    found += [(part.output, RESULT_KEPT_MS) for part in parts] + [(part.proof, PROOF_KEPT_MS) for part in parts]
    for digest, kept_ms in found:
        if digest is not None:
            yield digest, kept_ms
