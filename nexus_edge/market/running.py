"""The worker's queue: each slot takes the next lease, has it run and proved in a child process, and delivers what it signed."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from nexus_edge.clock import now_ms
from nexus_edge.errors import LedgerError, NexusEdgeError
from nexus_edge.ledger import Transaction
from nexus_edge.market import leases
from nexus_edge.market.leasebook import LeaseBook, Made
from nexus_edge.market.leases import LeaseState, State
from nexus_edge.market.work import output_seed
from nexus_edge.types import Bytes, Digest, ModelDigest, TensorCommitment
from nexus_edge.wire.digests import output_digest, statement_digest
from nexus_edge.wire.limits import INPUT, KIB
from nexus_edge.wire.messages import InputUpload, decode_message
from nexus_edge.wire.objects import Lease, OutputMode, ProofNotice, Result
from nexus_edge.wire.signing import sign

TRIES: Final = 2
"""A child that dies is given one more chance: the machine may have been short of something for a moment."""

STUCK_S: Final = 5.0
"""Between tries to write down what has been made."""

log = structlog.get_logger("market")


@dataclass(frozen=True)
class Order:
    """What a child is asked to do."""

    model: ModelDigest
    params: str
    context: Digest
    """The lease's id: the proof is bound to it."""
    upload: InputUpload
    expected: Digest
    """The lease's `inc`."""
    commit_output: bool
    output_seed: bytes
    """Of the output's commitment: from the node secret, so that a second run gives the same bytes."""
    commitments: tuple[TensorCommitment, ...] = ()
    """To the inputs, if they are at hand."""


@dataclass(frozen=True)
class Answer:
    """What a child made. Its proof was verified there, by the verifier that everyone uses."""

    output: bytes
    output_commitment: bytes | None
    statement: bytes
    proof: bytes
    run_ms: int
    prove_ms: int
    peak: Bytes


class Died(NexusEdgeError):
    """A child ended without an answer; `again` says whether another try makes sense."""

    def __init__(self, what: str, why: str, *, again: bool) -> None:
        super().__init__(what, why)
        self.again = again


class Prover(Protocol):
    """Runs and proves in child processes."""

    slots: int

    async def prove(self, order: Order, progress: Callable[[str, int], None]) -> Answer:
        """Run and prove; progress gets phases and ppm of each. Raises `Died`, `BadInput`; cancellation stops the child's work."""


class Runner:
    """Works through the queue of a `LeaseBook`."""

    def __init__(self, book: LeaseBook, prover: Prover) -> None:
        self._book = book
        self._prover = prover

    async def run(self) -> None:
        """For ever: one task a slot, and one that ends what is late."""
        async with asyncio.TaskGroup() as group:
            for slot in range(self._prover.slots):
                group.create_task(self._slot(), name=f"slot {slot}")
            group.create_task(self._expiry(), name="expiry")
            group.create_task(self._announce(), name="progress")

    async def _expiry(self) -> None:
        while True:
            await asyncio.sleep(1)
            try:
                await self._book.expire()
            except LedgerError as failed:
                log.error("leases cannot be ended", reason=str(failed))
            except Exception:  # a fault of this program: the others are still to be ended in their time
                log.exception("leases cannot be ended")

    async def _announce(self) -> None:
        """Wake those who poll when work has moved, at most ten times a second."""
        while True:
            await self._book.moved.wait()
            self._book.moved.clear()
            await self._book.leases.touched()
            await asyncio.sleep(0.1)

    async def _slot(self) -> None:
        while True:
            lease = self._book.leases[await self._book.ready.get(self._book.is_runnable)]
            with structlog.contextvars.bound_contextvars(lease=lease.id, job=lease.job, peer=lease.requester):
                try:
                    await self._serve(lease)
                except LedgerError as failed:  # a full disk: it is run again, and gives the same answer
                    log.error("a lease cannot go on", reason=str(failed))
                except Exception:  # a fault of this program, met by one lease: the slot is there for all others
                    log.exception("a lease cannot go on")
                else:
                    continue
                await asyncio.sleep(STUCK_S)
                if self._book.is_runnable(lease.id):
                    self._book.enqueue(lease.id)

    async def _serve(self, lease: LeaseState) -> None:
        """One lease to its end. Whatever happens to it, the slot goes on."""
        work = self._book.work[lease.id]
        task = asyncio.create_task(self._answer(lease), name=f"lease {lease.id.hex()[:8]}")
        work.cancel = task.cancel
        try:
            answer = await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                task.cancel()
                raise
            return  # the lease was cancelled or expired: its end is written by whoever did that
        except LedgerError:
            raise
        except NexusEdgeError as failed:
            log.warning("job failed", reason=str(failed))
            await self._fail(lease, str(failed))
            return
        except Exception:  # a fault of this program: running it once more would meet it again
            log.exception("job failed")
            await self._fail(lease, "a fault of the worker's program")
            return
        finally:
            work.cancel = None
            work.upload = None
        # Its files first: the lock is held by whoever still writes the input.
        output, proof = await asyncio.gather(self._book.blobs.put(answer.output), self._book.blobs.put(answer.proof))
        async with self._book.leases.lock(lease.id):
            if self._book.leases[lease.id].state is State.QUEUED:
                await self._deliver(self._book.leases[lease.id], answer, output, proof)

    async def _answer(self, lease: LeaseState) -> Answer:
        book = self._book
        order = (await book.ledger.object(lease.id)).of(Lease).object
        work = book.work[lease.id]
        upload, commitments = (work.upload, work.commitments) if work.upload is not None else (await self._stored(lease), ())
        seed = output_seed(book.key, lease.id, order.inc)
        asked = Order(
            lease.model, order.params, lease.id, upload, order.inc, order.outm == OutputMode.COMMITTED, seed, commitments
        )  # fmt: skip
        tries = 0
        while True:
            tries += 1
            work.run_began, work.forecast = None, book.models.forecast(lease.model, order.params, order.sem) or work.forecast
            try:
                return await self._prover.prove(asked, lambda phase, ppm: self._progress(lease.id, phase, ppm))
            except Died as died:
                if not died.again or tries == TRIES:
                    raise
                log.warning("the child died, trying again", reason=str(died))

    async def _stored(self, lease: LeaseState) -> InputUpload:
        """The input of a lease that was taken up after a restart."""
        stored = None if lease.input is None else await self._book.blobs.get(lease.input)
        if stored is None:
            raise NexusEdgeError("the input is lost", "its file is gone or damaged")
        return decode_message(InputUpload, stored, INPUT + 64 * KIB)

    def _progress(self, lease: Digest, phase: str, ppm: int) -> None:
        """From the prover's own callback: a beat is work that was done, never a timer."""
        work = self._book.work.get(lease)
        if work is None:
            return  # it ended, and the child has not heard yet
        work.progress(phase, ppm)
        self._book.moved.set()

    async def _deliver(self, lease: LeaseState, answer: Answer, output: Digest, proof: Digest) -> None:
        book = self._book
        result = sign(
            book.key,
            Result(
                iss=book.key.id,
                at=now_ms(),
                to=lease.requester,
                lease=lease.id,
                out=output_digest(lease.id, answer.output),
                outc=Digest(answer.output_commitment or bytes(32)),
                rand=bytes(32),
                run_ms=answer.run_ms,
                peak=answer.peak,
            ),
        )
        notice = sign(
            book.key,
            ProofNotice(
                iss=book.key.id,
                at=now_ms(),
                to=lease.requester,
                lease=lease.id,
                result=result.id,
                stmt=statement_digest(answer.statement),
                proof=proof,
                len=len(answer.proof),
                prove_ms=answer.prove_ms,
            ),
        )
        event = leases.Delivered(now_ms(), result.id, output, notice.id, proof, answer.run_ms, answer.prove_ms)

        def deliver(transaction: Transaction) -> None:
            transaction.keep(result)
            transaction.keep(notice)
            transaction.owe(lease.id, result.id)

        def delivered() -> None:
            book.models.unpin(lease.model)
            book.work[lease.id].step("delivered")
            book.hold(lease.id, Made(answer.output, answer.proof))
            book.delivered(lease.id, proof)

        await book.leases.record(lease.id, event, deliver, delivered)
        log.info("delivered", run_ms=answer.run_ms, prove_ms=answer.prove_ms, proof_bytes=len(answer.proof))

    async def _fail(self, lease: LeaseState, reason: str) -> None:
        async with self._book.leases.lock(lease.id):
            if self._book.leases[lease.id].state.is_open:
                await self._book.end(lease, leases.Failed(now_ms(), reason))
