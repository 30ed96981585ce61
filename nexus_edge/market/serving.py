"""What a node answers its peers: the one object behind the mesh port."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from nexus_edge.market.fleet import Fleet
from nexus_edge.market.settling import Till
from nexus_edge.market.worker import Worker
from nexus_edge.transport import Caller
from nexus_edge.types import Digest, NodeId
from nexus_edge.wire.messages import (
    AccountAnswer,
    EntriesAnswer,
    GroupsAnswer,
    InputUpload,
    LeaseStatus,
    ObjectPart,
    PeersAnswer,
    PeersRequest,
    QuoteRequest,
    ResultAnswer,
    RevealAnswer,
    RevealRequest,
    Upload,
    UploadAnswer,
)
from nexus_edge.wire.objects import Accept, Caps, Entry, GroupCertificate, Lease, NodeRecord, Quote
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed


class Presence(Protocol):
    """What a node says of itself and of whom it knows."""

    def record(self) -> Signed[NodeRecord]:
        """Our record, fresh enough to be passed on."""

    def caps(self) -> Signed[Caps]:
        """Our capabilities."""

    def sample(self, caller: NodeId, request: PeersRequest) -> PeersAnswer:
        """Reachable peers that the caller does not know."""


class Uploads(Protocol):
    """Models that peers send."""

    async def put(self, caller: Caller, line: int, digest: Digest, upload: Upload) -> UploadAnswer:
        """A manifest or a chunk of a model that we lack, from a caller with such a line. Raises `Refusal`."""


class Serving:
    """Hands each request to the part that it is for."""

    def __init__(
        self, worker: Worker, till: Till, fleet: Fleet, presence: Presence, uploads: Uploads, excluded: Callable[[NodeId], Awaitable[bool]]
    ) -> None:
        self._worker = worker
        self._fleet = fleet
        self._till = till
        self._presence = presence
        self._uploads = uploads
        self._excluded = excluded

    async def node(self) -> Signed[NodeRecord]:
        """`GET /1/node`."""
        return self._presence.record()

    async def caps(self) -> Signed[Caps]:
        """`GET /1/caps`."""
        return self._presence.caps()

    async def peers(self, caller: Caller, request: PeersRequest) -> PeersAnswer:
        """`POST /1/peers`."""
        return self._presence.sample(caller.peer, request)

    async def groups(self) -> GroupsAnswer:
        """`GET /1/groups`."""
        return self._fleet.certificates()

    async def join(self, caller: Caller, certificate: Signed[GroupCertificate]) -> None:
        """`POST /1/groups`."""
        await self._fleet.join(caller.peer, certificate)

    async def quote(self, caller: Caller, request: QuoteRequest) -> Signed[Quote]:
        """`POST /1/quotes`."""
        await self._admit(caller)
        return await self._worker.quote(caller, request)

    async def lease(self, caller: Caller, lease: Signed[Lease], quote: Signed[Quote], upload: InputUpload | None) -> Signed[Accept]:
        """`POST /1/leases`."""
        await self._admit(caller)
        return await self._worker.lease(caller, lease, quote, upload)

    async def put_input(self, caller: Caller, lease: Digest, upload: InputUpload) -> None:
        """`PUT /1/leases/{h}/input`."""
        await self._worker.put_input(caller, lease, upload)

    async def poll(self, caller: Caller, lease: Digest, after: int, wait_ms: int) -> LeaseStatus:
        """`GET /1/leases/{h}`."""
        return await self._worker.poll(caller, lease, after, wait_ms)

    async def result(self, caller: Caller, lease: Digest) -> ResultAnswer:
        """`GET /1/leases/{h}/result`."""
        return await self._worker.result(caller, lease)

    async def reveal(self, caller: Caller, lease: Digest, request: RevealRequest) -> RevealAnswer:
        """`POST /1/leases/{h}/reveal`: only sampled leases have a draw, and this version makes none."""
        del caller, lease, request
        raise Refusal(Code.CONFLICT, "nothing is drawn for a lease in mode proved")

    async def cancel(self, caller: Caller, lease: Digest) -> LeaseStatus:
        """`POST /1/leases/{h}/cancel`."""
        return await self._worker.cancel(caller, lease)

    async def entries(self, caller: Caller, entries: tuple[Signed[Entry], ...]) -> EntriesAnswer:
        """`POST /1/entries`: also of those whom we give no work."""
        return await self._till.entries(caller, entries)

    async def account(self, caller: Caller, chain: bytes, seq: int) -> AccountAnswer:
        """`GET /1/account`."""
        return await self._till.account(caller, chain, seq)

    async def put_object(self, caller: Caller, digest: Digest, upload: Upload) -> UploadAnswer:
        """`PUT /1/objects/{h}`."""
        await self._admit(caller)
        known = await self._worker.book.account(caller.peer)
        return await self._uploads.put(caller, known.line, digest, upload)

    async def get_object(self, caller: Caller, digest: Digest, start: int, length: int) -> ObjectPart:
        """`GET /1/objects/{h}`."""
        return await self._worker.get_object(caller, digest, start, length)

    async def _admit(self, caller: Caller) -> None:
        if await self._excluded(caller.peer):
            raise Refusal(Code.EXCLUDED, "this node does no business with you")
