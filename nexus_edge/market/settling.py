"""Payment: the worker takes entries, the requester posts them until they are acknowledged. One party's silence costs only time."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import structlog

from nexus_edge.clock import now_ms
from nexus_edge.errors import LedgerError, PeerError
from nexus_edge.identity import short_id
from nexus_edge.ledger import EntryRefused, Ledger, Transaction
from nexus_edge.market import jobs, leases
from nexus_edge.market.jobs import Job, Phase
from nexus_edge.market.leases import LeaseState
from nexus_edge.market.machines import Machines
from nexus_edge.transport import Caller, PeerConnection
from nexus_edge.types import Digest, NodeId
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import ENTRIES_PER_POST
from nexus_edge.wire.messages import AccountAnswer, EntriesAnswer
from nexus_edge.wire.objects import Ack, Entry
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, read_signed

FIRST_WAIT_S: Final = 0.5
LAST_WAIT_S: Final = 60.0
"""Between tries to pay a peer that does not answer: it may be gone for long, and comes back some day."""
COLLECTIONS: Final = 64
"""Answers with entries that are asked for at one time: some four thousand entries, and no peer can keep us asking."""
LOOK_EVERY_S: Final = 3600.0
"""Between two looks at what a peer signed for us: it posts that itself, if it can dial us."""
TOO_MANY_RETRY_MS: Final = 60_000
"""After more entries than are taken of one who owes nothing: what is counted is counted by days."""
QUARRELS: Final = (Code.GAP, Code.REGRESS, Code.PAID, Code.BAD_OBJECT, Code.CONFLICT)
"""Refusals that are about an entry; others are about the moment."""

log = structlog.get_logger("market")


class Till:
    """The creditor's side."""

    def __init__(self, ledger: Ledger, open_leases: Machines[LeaseState]) -> None:
        self._ledger = ledger
        self._leases = open_leases

    async def entries(self, caller: Caller, entries: tuple[Signed[Entry], ...]) -> EntriesAnswer:
        """`POST /1/entries`: takes them in order, and stops at the first that does not fit."""
        acks = [await self.take(caller.peer, entry) for entry in entries]
        last = await self._ledger.read(lambda reader: reader.last_entry(caller.peer, reader.own))
        return EntriesAnswer(tuple(ack.to_bytes() for ack in acks), None if last is None else last.to_bytes())

    async def account(self, caller: Caller, chain: bytes, seq: int) -> AccountAnswer:
        """`GET /1/account`."""
        found = await self._ledger.read(lambda reader: reader.entries_after(caller.peer, chain, seq, ENTRIES_PER_POST))
        book = await self._ledger.read(lambda reader: reader.book(caller.peer))
        return AccountAnswer(tuple(entry.to_bytes() for entry in found), book.locked, book.written_off)

    async def take(self, debtor: NodeId, entry: Signed[Entry]) -> Signed[Ack]:
        """Take one entry, and with it settle the lease that it pays. Raises a refusal with the last entry that we hold."""
        try:
            lease = await self._paid_by(debtor, entry)
            if lease is None:
                return await self._ledger.transact("take", partial(_take, entry))
            async with self._leases.lock(lease.id):
                if self._leases[lease.id].entry is not None:
                    return await self._ledger.transact("take", partial(_take, entry))
                return await self._leases.record(lease.id, leases.Settled(now_ms(), entry.id), partial(_take, entry))
        except EntryRefused as refused:
            if refused.code is Code.CONFLICT:
                log.warning("a peer signed two entries under one number", peer=short_id(debtor))
                await self._ledger.transact("contradicted", partial(_contradicted, entry))
            retry_ms = TOO_MANY_RETRY_MS if refused.code is Code.RATE else None
            raise Refusal(refused.code, refused.why, last=refused.last, retry_ms=retry_ms) from None

    async def _paid_by(self, debtor: NodeId, entry: Signed[Entry]) -> LeaseState | None:
        """The lease that waits for this entry, unless it was so long ago that only the book knows."""
        lease = await self._ledger.read(lambda reader: reader.owed_for(debtor, entry.object.ref))
        return None if lease is None else self._leases.get(lease)


class Connections(Protocol):
    """How to reach peers."""

    def connection(self, peer: NodeId) -> PeerConnection | None:
        """None for one whose address is not known."""


class Payer:
    """The debtor's side: one task for each creditor, while something is unacknowledged."""

    def __init__(self, ledger: Ledger, open_jobs: Machines[Job], peers: Connections, till: Till) -> None:
        self._ledger = ledger
        self._jobs = open_jobs
        self._till = till
        self._peers = peers
        self._tasks: dict[NodeId, asyncio.Task[None]] = {}
        self._woken: dict[NodeId, asyncio.Event] = {}
        self._looked: dict[NodeId, float] = {}

    async def load(self) -> None:
        """Go on paying what a former process signed, and compare the books that a restore left behind."""
        for creditor in await self._ledger.read(lambda reader: reader.debts()):
            self.wake(creditor)

    def wake(self, creditor: NodeId) -> None:
        """Something was signed for a creditor, or it is up again."""
        self._woken.setdefault(creditor, asyncio.Event()).set()
        if creditor not in self._tasks or self._tasks[creditor].done():
            self._tasks[creditor] = asyncio.create_task(self._pay(creditor), name=f"pay {short_id(creditor)}")

    async def close(self) -> None:
        """Stop posting; what is unacknowledged is posted again after the next start."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _pay(self, creditor: NodeId) -> None:
        woken = self._woken[creditor]
        wait = FIRST_WAIT_S
        with structlog.contextvars.bound_contextvars(peer=short_id(creditor)):
            while True:
                woken.clear()
                try:
                    if await self._is_square(creditor):
                        await self._look(creditor)
                        if not woken.is_set():
                            return
                        continue
                    if await self._post(creditor):
                        wait = FIRST_WAIT_S
                        continue
                except Refusal as refusal:
                    asked = min(LAST_WAIT_S, (refusal.retry_ms or 0) / 1000)
                    log.info("not paid yet", reason=str(refusal), again_s=max(wait, asked))
                    await asyncio.sleep(asked)
                except (PeerError, LedgerError, BadObject) as failed:
                    log.info("not paid yet", reason=str(failed), again_s=wait)
                except Exception:  # a fault of this program: what is owed is owed all the same
                    log.exception("not paid yet", again_s=wait)
                try:
                    async with asyncio.timeout(wait):
                        await woken.wait()
                except TimeoutError:
                    wait = min(LAST_WAIT_S, 2 * wait)

    async def _is_square(self, creditor: NodeId) -> bool:
        """Whether there is nothing to post, and no book to compare."""
        return await self._ledger.read(lambda reader: not reader.unacknowledged(creditor, 1) and not reader.book(creditor).unsynchronised)

    async def _post(self, creditor: NodeId) -> bool:
        """Post once; whether something came of it, so that it is worth while to go on at once.

        After a refusal the first entry goes alone, so that it is known which one is meant.
        """
        connection = self._peers.connection(creditor)
        if connection is None:
            return False
        pending = (await self._ledger.read(lambda reader: reader.unacknowledged(creditor)))[:ENTRIES_PER_POST]
        try:
            answer = await connection.entries(tuple(pending))
        except Refusal as refusal:
            if len(pending) < 2 or refusal.code not in QUARRELS:
                return await self._refused(creditor, pending, refusal)
            try:
                answer = await connection.entries((pending[0],))
            except Refusal as alone:
                return await self._refused(creditor, pending, alone)
        last = None if answer.last is None else read_signed(answer.last, Entry)
        for number, data in enumerate(answer.acks, 1):
            await self._acknowledged(creditor, read_signed(data, Ack), pending, last if number == len(answer.acks) else None)
        if last is None or not answer.acks:
            await self._ledger.transact("informed", partial(_informed, creditor, last))
        if not pending and not await self._ledger.read(lambda reader: reader.unacknowledged(creditor)):
            await self._collect(creditor, connection)
            return True
        return bool(answer.acks)

    async def _look(self, peer: NodeId) -> None:
        """Now and then, whether it signed something for us: one that cannot dial us cannot post its refunds and prepayments."""
        connection = self._peers.connection(peer)
        if connection is None or time.monotonic() - self._looked.get(peer, -LOOK_EVERY_S) < LOOK_EVERY_S:
            return
        self._looked[peer] = time.monotonic()
        try:
            await self._take_signed(peer, connection)
        except (PeerError, LedgerError, BadObject, Refusal) as failed:
            log.info("what the peer signed cannot be taken", reason=str(failed))

    async def _collect(self, peer: NodeId, connection: PeerConnection) -> None:
        """After a restore: take what the peer signed for us since, then the book is compared."""
        await self._take_signed(peer, connection)
        await self._ledger.transact("synchronised", partial(_synchronised, peer))
        log.info("books are compared", peer=short_id(peer))

    async def _take_signed(self, peer: NodeId, connection: PeerConnection) -> None:
        for _ in range(COLLECTIONS):
            last = await self._ledger.read(lambda reader: reader.last_entry(peer, reader.own))
            chain, seq = (bytes(8), 0) if last is None else (last.object.chain, last.object.seq)
            answer = await connection.account(chain, seq)
            for data in answer.entries:
                entry = read_signed(data, Entry)
                if entry.issuer != peer:
                    raise BadObject("the peer shows entries of another")
                await self._till.take(peer, entry)
            if not answer.entries:
                break

    async def _acknowledged(self, creditor: NodeId, ack: Signed[Ack], posted: list[Signed[Entry]], last: Signed[Entry] | None) -> None:
        entry = next((entry for entry in posted if entry.id == ack.object.entry), None)
        if entry is None or (ack.issuer, ack.object.to) != (creditor, entry.issuer):
            raise BadObject("the peer acknowledges what we did not post")
        await self._settle(entry.object.ref, partial(_acknowledge, creditor, ack, last))

    async def _refused(self, creditor: NodeId, posted: list[Signed[Entry]], refusal: Refusal) -> bool:
        if refusal.code not in QUARRELS or not posted:
            raise refusal
        log.info("books are compared", reason=refusal.text, code=refusal.code.value)
        refused = partial(_come_to_terms, creditor, posted[0], refusal)
        if refusal.code in (Code.GAP, Code.REGRESS):
            await self._ledger.transact("refused", refused)
        else:
            await self._settle(posted[0].object.ref, refused, disputed="" if refusal.code is Code.PAID else refusal.text)
        return True

    async def _settle(self, ref: Digest, work: Callable[[Transaction], object], *, disputed: str = "") -> None:
        """Write what the creditor said, and with it that the job is settled which it is about, or that its payment is disputed."""
        job = next((one for one in self._jobs if one.phase is Phase.PAYING and one.attempt.result == ref), None)
        if job is None:
            await self._ledger.transact("acknowledged", work)
            return
        event = jobs.Disputed(now_ms(), disputed[:200]) if disputed else jobs.Settled(now_ms())
        await self._jobs.record(job.id, event, work)
        log.info(event.kind, job=job.id, paid=job.paid)


def _take(entry: Signed[Entry], transaction: Transaction) -> Signed[Ack]:
    ack, _ = transaction.take(entry)
    return ack


def _contradicted(entry: Signed[Entry], transaction: Transaction) -> None:
    transaction.contradicted(entry)


def _informed(creditor: NodeId, last: Signed[Entry] | None, transaction: Transaction) -> None:
    transaction.informed(creditor, last)


def _synchronised(peer: NodeId, transaction: Transaction) -> None:
    transaction.synchronised(peer)


def _acknowledge(creditor: NodeId, ack: Signed[Ack], last: Signed[Entry] | None, transaction: Transaction) -> None:
    """`last` comes with the last acknowledgement of an answer."""
    transaction.acknowledged(ack)
    if last is not None:
        transaction.informed(creditor, last)


def _come_to_terms(creditor: NodeId, entry: Signed[Entry], refusal: Refusal, transaction: Transaction) -> Digest | None:
    return transaction.refused(creditor, entry, refusal.code, refusal.last)
