"""Both ends of group certificates: this node shows its own to every peer it meets, and remembers what members of its fleets show.

Whoever dials shows (`POST /1/groups`) and looks (`GET /1/groups`): a requester that nobody can dial gets its line all the same, and knows
which of its workers are of a fleet of its own.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

import structlog

from nexus_edge.clock import now_ms
from nexus_edge.errors import LedgerError, PeerError
from nexus_edge.identity import short_id
from nexus_edge.ledger import Ledger, Member
from nexus_edge.market.buying import Reachable
from nexus_edge.market.membership import Membership
from nexus_edge.types import Digest, NodeId
from nexus_edge.wire.messages import GroupsAnswer
from nexus_edge.wire.objects import GroupCertificate
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed

LOOK_S: Final = 30.0
"""Between two looks at the files of our certificates: one that was renewed is noticed without a signal."""
AGAIN_S: Final = 600.0
"""A peer remembers what it was shown. One that lost it, or serves a fleet only since then, is shown it again after this."""
RETRY_S: Final = 30.0
"""After a peer that did not answer, or was busy."""
AT_ONCE: Final = 8
"""Peers asked at the same time."""
ASK_S: Final = 10.0
"""For all that one peer is shown and asked."""
ROUND_S: Final = 20.0
"""For all peers whose turn it is: those that stall, however many, hold up one that has just come for no longer."""
FAULTY: Final = (Code.BAD_OBJECT, Code.CONFLICT, Code.NOT_YOURS)
"""Refusals of a certificate for what it is, or for what the two clocks say."""

log = structlog.get_logger("market")


class Peers(Protocol):
    """Who is there."""

    def up(self) -> Sequence[Reachable]:
        """Peers that answer."""


class Fleet:
    """What peers and this node show each other of the fleets they are in."""

    def __init__(self, ledger: Ledger, membership: Membership, peers: Peers) -> None:
        self.membership = membership
        self._ledger = ledger
        self._peers = peers
        self._due: dict[NodeId, tuple[frozenset[Digest], float]] = {}
        """What each peer that is up was shown, and when it is to be shown it again."""
        self._members: Mapping[NodeId, Member] = {}

    async def load(self) -> None:
        """Who belongs to us since before this start, and what names us."""
        await self.membership.look()
        await self._remember()

    def trusts(self, peer: NodeId) -> bool:
        """Whether a peer is of a fleet of ours."""
        member = self._members.get(peer)
        return member is not None and member.until > now_ms()

    # What peers ask

    def certificates(self) -> GroupsAnswer:
        """`GET /1/groups`."""
        return GroupsAnswer(tuple(one.to_bytes() for one in self.membership.holding()))

    async def join(self, peer: NodeId, certificate: Signed[GroupCertificate]) -> None:
        """`POST /1/groups`: on the disk when this returns. Raises a `Refusal`.

        What is refused, or held already, costs a query and no write.
        """
        if not await self._ledger.read(lambda reader: reader.is_new(certificate, peer)):
            return
        await self._ledger.transact("group:joined", lambda transaction: transaction.join(certificate))
        await self._remember()
        log.info("a member of our fleet", peer=short_id(peer), group=short_id(certificate.issuer), until=certificate.object.exp)

    # What we ask of peers

    async def run(self, watch: AbstractContextManager[AsyncIterator[object]]) -> None:
        """Show and look, whenever the table of peers changes and now and then."""
        with watch as changes:
            while True:
                await self.round()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await anext(changes)

    async def round(self) -> None:
        """Read what was renewed, and meet the peers whose turn it is."""
        await self.membership.look()
        up = {peer.id: peer for peer in self._peers.up()}
        self._due = {peer: due for peer, due in self._due.items() if peer in up}
        ours = self.membership.holding()
        if not ours and not self._ledger.policy.groups:
            return
        now, shown = time.monotonic(), frozenset(one.id for one in ours)
        turn = asyncio.Semaphore(AT_ONCE)
        with contextlib.suppress(TimeoutError):  # who was not met is due still
            async with asyncio.timeout(ROUND_S), asyncio.TaskGroup() as tasks:
                for peer in up.values():
                    before, until = self._due.get(peer.id, (None, 0.0))
                    if before != shown or until <= now:
                        tasks.create_task(self._meet(peer, ours, turn), name=f"fleet {short_id(peer.id)}")

    async def _meet(self, peer: Reachable, ours: Sequence[Signed[GroupCertificate]], turn: asyncio.Semaphore) -> None:
        shown = frozenset(one.id for one in ours)
        after_s = AGAIN_S
        async with turn:
            try:
                async with asyncio.timeout(ASK_S):
                    await self._show(peer, ours)
                    if self._ledger.policy.groups:
                        await self._look(peer)
            except (PeerError, Refusal, LedgerError, TimeoutError) as failed:
                after_s = RETRY_S
                log.debug("a peer was not asked about groups", peer=short_id(peer.id), reason=str(failed))
        self._due[peer.id] = shown, time.monotonic() + after_s

    async def _show(self, peer: Reachable, ours: Sequence[Signed[GroupCertificate]]) -> None:
        """Raises a `Refusal` that says nothing about the certificate."""
        for certificate in ours:
            try:
                await peer.connection.join(certificate)
            except Refusal as refused:
                if refused.code in FAULTY:
                    log.warning("a group certificate of ours is refused", peer=short_id(peer.id), reason=refused.text)
                elif refused.code is not Code.NOT_FOUND:  # most peers serve other fleets, or none
                    raise

    async def _look(self, peer: Reachable) -> None:
        """What the peer belongs to, as far as it is ours to serve."""
        ours = {group.key for group in self._ledger.policy.groups}
        for certificate in await peer.connection.groups():
            if certificate.issuer in ours:
                with contextlib.suppress(Refusal):  # it may show us what has ended, or is another's
                    await self.join(peer.id, certificate)

    async def _remember(self) -> None:
        self._members = await self._ledger.read(lambda reader: reader.members())
