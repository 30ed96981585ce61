"""What a requester signs and writes about money: the part of each step that the ledger does in its transaction."""

from typing import Any

from nexus_edge.clock import now_ms
from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import Transaction
from nexus_edge.market import jobs
from nexus_edge.market.jobs import Attempt, Job
from nexus_edge.market.machines import Events
from nexus_edge.market.placement import Candidate
from nexus_edge.types import Digest, MicroCredits
from nexus_edge.wire.digests import audit_commitment
from nexus_edge.wire.objects import Lease, Quote
from nexus_edge.wire.signing import Signed, sign


def lease_for(key: NodeKey, job: Job, chosen: Candidate) -> Signed[Lease]:
    """The lease that offers a worker the job at the terms of its quote."""
    terms = chosen.quote.object
    number = len(job.attempts)
    return sign(
        key,
        Lease(
            iss=key.id,
            at=now_ms(),
            to=chosen.worker,
            job=job.id,
            att=number,
            quote=chosen.quote.id,
            inc=job.inc,
            outm=job.outm.value,
            commit=audit_commitment(job.id, number, key.id, bytes(32)),
            model=terms.model,
            sem=terms.sem,
            params=terms.params,
            mode=terms.mode,
            price=terms.price,
            start_fee=terms.start_fee,
            deadline_ms=terms.deadline_ms,
            p_ppm=terms.p_ppm,
            stake=terms.stake,
            audit_ms=terms.audit_ms,
        ),
    )


def reserve(lease: Signed[Lease], quote: Signed[Quote], transaction: Transaction) -> None:
    """Keep lease and quote, and promise the price."""
    transaction.keep(quote)
    transaction.reserve(lease)


def keep(*objects: Any) -> None:
    """Keep objects as they were signed: the last argument is the transaction."""
    *signed, transaction = objects
    for one in signed:
        transaction.keep(one)


def release(lease: Digest, transaction: Transaction) -> None:
    """Nothing will be owed for the lease."""
    transaction.release(lease)


def pay(attempt: Attempt, transaction: Transaction) -> tuple[Events, None]:
    """Sign the price of a job that was verified."""
    if attempt.result is None:
        raise LedgerError("the ledger contradicts itself", "a verified job has no result")
    entry = transaction.pay(attempt.worker, attempt.lease, "job", attempt.price, attempt.result)
    return (jobs.Paying(now_ms(), entry.id, attempt.price),), None


def pay_fee(attempt: Attempt, fee: MicroCredits, transaction: Transaction) -> tuple[Events, None]:
    """Sign the fee of a job that was cancelled after it had begun."""
    entry = transaction.pay(attempt.worker, attempt.lease, "fee", fee, attempt.lease)
    return (jobs.Paying(now_ms(), entry.id, fee),), None
