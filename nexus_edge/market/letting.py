"""Who may have a lease: quotes, and the checks and the account of each new lease."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from nexus_edge.clock import now_ms, ticking_ms
from nexus_edge.errors import LedgerError
from nexus_edge.ledger import Account, NoCredit, Rotation, Transaction
from nexus_edge.market import leases, quoting
from nexus_edge.market.leasebook import LeaseBook, ended_refusal
from nexus_edge.market.leases import LeaseState, State
from nexus_edge.market.pricing import core_ms
from nexus_edge.market.quoting import Offer
from nexus_edge.market.work import INPUT_GRACE_S, Work
from nexus_edge.transport import Caller
from nexus_edge.types import Digest, ModelDigest
from nexus_edge.wire.digests import audit_commitment
from nexus_edge.wire.limits import OPEN_LEASES, OPEN_LEASES_OF_STRANGERS, OPEN_LEASES_PER_ACCOUNT, UPLOAD_BYTES_PER_S
from nexus_edge.wire.messages import QuoteRequest
from nexus_edge.wire.objects import Accept, Lease, Mode, OutputMode, Quote
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, sign

OPEN_RETRY_MS: Final = 1000
"""Leases end all the time."""

log = structlog.get_logger("market")


class Letting:
    """Takes new leases into the book."""

    def __init__(self, book: LeaseBook, offer: Callable[[], Offer]) -> None:
        self.draining = False
        self.taken: dict[Digest, float] = {}
        """Quotes that were taken, by this process, since it takes none that another signed; and when, until they are out of date."""
        self._book = book
        self._offer = offer
        self._since = ticking_ms()
        self._admission = asyncio.Lock()
        self._rotations = {True: Rotation(), False: Rotation()}
        """Who waits for the newcomers' bucket of private networks, and of all others. A restart forgets it: they ask again."""

    async def quote(self, caller: Caller, request: QuoteRequest) -> Signed[Quote]:
        """`POST /1/quotes`."""
        self._refuse_draining()
        rotation = self._rotation(caller)
        room, standing, known = await self._book.ledger.read(
            lambda reader: (
                reader.room(caller.peer, caller.prefix, private=caller.private, rotation=rotation),
                reader.standing(caller.peer),
                reader.account(caller.peer),
            )
        )
        self._check_open(caller, known)
        forecast = self._book.models.forecast(ModelDigest(request.model), request.params, request.sem)
        if forecast is None:
            self._book.models.invite(caller.peer, ModelDigest(request.model), request.params)
            return quoting.invitation(self._book.key, caller.peer, request, room)
        offered = quoting.quote(self._book.key, caller.peer, request, forecast, self._offer(), room)
        if offered.object.price > room:  # it will not offer a lease that is refused, and asks again
            self._wait(caller, standing.draws(offered.object.price))
        return offered

    async def take(
        self, caller: Caller, lease: Signed[Lease], offered: Signed[Quote], admitted: Callable[[], None] = lambda: None
    ) -> Signed[Accept]:
        """Let a peer have a lease, or tell it again that it has it. Raises a refusal.

        `admitted` is called when nothing but its account's credit and our disk can keep it from having the lease.
        """
        known = self._book.leases.get(lease.id)
        if known is not None:
            return await self._accept_of(known)
        # Once begun it is gone through with, or a second copy could be let in while the first is being written.
        return await asyncio.shield(asyncio.create_task(self._decide(caller, lease, offered, admitted), name=f"lease {lease.id.hex()[:8]}"))

    async def _decide(self, caller: Caller, lease: Signed[Lease], offered: Signed[Quote], admitted: Callable[[], None]) -> Signed[Accept]:
        order = lease.object
        number = (order.iss, order.job, order.att)
        async with self._admission:
            self._forget_quotes()
            if number in self._book.by_number or offered.id in self.taken:
                if self._book.by_number.get(number) == lease.id:  # the same bytes, sent twice at once
                    return await self._accept_of(self._book.leases[lease.id])
                raise Refusal(Code.CONFLICT, "another lease has this job and attempt, or takes this quote")
            self._refuse_draining()
            quoting.check_terms(self._book.key, order, offered, ticking_ms(), self._since)
            known = await self._book.account(caller.peer)
            account = self._check_open(caller, known)
            if order.outm not in (OutputMode.CLEAR, OutputMode.COMMITTED):
                raise Refusal(Code.BAD_OBJECT, f"no output is of kind {order.outm}")
            forecast = self._book.models.forecast(ModelDigest(order.model), order.params, order.sem)
            if forecast is None:
                raise Refusal(Code.MODEL_MISSING, "the model has left since the quote: ask again")
            quoting.check_room(forecast, self._offer())
            wait = self._book.free.take(account)
            if wait:
                raise Refusal(Code.BUSY, "too many leases of yours came to nothing", retry_ms=int(1000 * wait) + 1)
            patience_s = INPUT_GRACE_S + forecast.input_bytes / UPLOAD_BYTES_PER_S
            cost = core_ms(Mode(order.mode), forecast.core_run_ms, forecast.core_prove_ms)
            work = Work(time.monotonic(), account, caller.prefix, known.line, cost, patience_s, forecast)
            admitted()
            return await self._admit(caller, lease, offered, work)

    async def _admit(self, caller: Caller, lease: Signed[Lease], offered: Signed[Quote], work: Work) -> Signed[Accept]:
        order = lease.object
        commit = audit_commitment(order.job, order.att, self._book.key.id, bytes(32))
        accept = sign(self._book.key, Accept(iss=self._book.key.id, at=now_ms(), to=order.iss, lease=lease.id, commit=commit))

        rotation = self._rotation(caller)

        def admit(transaction: Transaction) -> int:
            transaction.keep(offered)
            transaction.keep(accept)
            return transaction.admit(lease, caller.prefix, private=caller.private, rotation=rotation)

        model = ModelDigest(order.model)
        self._book.models.pin(model)

        def leased() -> None:
            self._book.by_number[(order.iss, order.job, order.att)] = lease.id
            self.taken[offered.id] = work.accepted
            self._book.work[lease.id] = work
            work.step("leased")

        try:
            drawn = await self._book.leases.begin(lease.id, leases.Leased.of(now_ms(), lease, accept.id), admit, leased)
        except NoCredit as short:
            self._book.models.unpin(model)
            self._wait(caller, short.drawn)
            raise Refusal(Code.NO_CREDIT, f"{short.why}; {short.hint}", room=short.room) from None
        except LedgerError:
            self._book.models.unpin(model)
            raise
        if drawn:
            self._rotations[caller.private] = self._rotations[caller.private].served(caller.prefix)
        log.info("leased", lease=lease.id, job=order.job, peer=order.iss, model=model, price=order.price)
        return accept

    def _rotation(self, caller: Caller) -> Rotation:
        """Who waits now for what the caller would draw from."""
        self._rotations[caller.private] = self._rotations[caller.private].at(time.monotonic())
        return self._rotations[caller.private]

    def _wait(self, caller: Caller, wanted: int) -> None:
        """Remember that so much of the bucket was wanted and not there. Nothing wanted of it: what is short is the cap, or the line of a fleet."""
        if wanted > 0:
            self._rotations[caller.private] = self._rotation(caller).short(caller.prefix, wanted, time.monotonic())

    def _forget_quotes(self) -> None:
        """Those that hold no more: they are refused by their age."""
        before = time.monotonic() - 2 * quoting.TTL_MS / 1000
        while self.taken and next(iter(self.taken.values())) < before:
            del self.taken[next(iter(self.taken))]

    def _refuse_draining(self) -> None:
        if self.draining:
            raise Refusal(Code.DRAINING, "this node takes no new work", retry_ms=60_000)

    def _check_open(self, caller: Caller, known: Account) -> bytes | str:
        """The account that one more lease would be on. Raises a `busy` refusal if there are too many.

        Names cost nothing: those who have no line share one account at each prefix.
        """
        account = known.name or caller.prefix
        accounts = [work.account for lease, work in self._book.work.items() if self._book.leases[lease].state.is_open]
        if len(accounts) >= OPEN_LEASES:
            raise Refusal(Code.BUSY, f"{len(accounts)} leases are open", retry_ms=OPEN_RETRY_MS)
        if known.name is None and sum(isinstance(one, str) for one in accounts) >= OPEN_LEASES_OF_STRANGERS:
            raise Refusal(Code.BUSY, f"{OPEN_LEASES_OF_STRANGERS} leases of nodes that are new here are open", retry_ms=OPEN_RETRY_MS)
        if accounts.count(account) >= OPEN_LEASES_PER_ACCOUNT:
            whose = (
                "you and others at your address who are new here have"
                if known.name is None
                else "you have"
                if known.name == caller.peer
                else "your fleet has"
            )
            raise Refusal(Code.BUSY, f"{whose} {OPEN_LEASES_PER_ACCOUNT} leases open", retry_ms=OPEN_RETRY_MS)
        return account

    async def _accept_of(self, lease: LeaseState) -> Signed[Accept]:
        if lease.state in (State.EXPIRED, State.CANCELLED, State.FAILED):
            raise ended_refusal(lease)
        return (await self._book.kept(lease.accept)).of(Accept)
