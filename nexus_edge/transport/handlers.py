"""What a node does for its peers, as the transport sees it."""

from typing import Protocol

from nexus_edge.transport.addresses import Caller
from nexus_edge.types import Digest
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
from nexus_edge.wire.signing import Signed


class PeerHandlers(Protocol):
    """What a node does for its peers. Raising `Refusal` refuses. Ping and dialback are in `nexus_edge.transport.answering`."""

    async def node(self) -> Signed[NodeRecord]:
        """Our record."""

    async def caps(self) -> Signed[Caps]:
        """Our capabilities."""

    async def peers(self, caller: Caller, request: PeersRequest) -> PeersAnswer:
        """A sample of reachable peers."""

    async def groups(self) -> GroupsAnswer:
        """Certificates that name us."""

    async def join(self, caller: Caller, certificate: Signed[GroupCertificate]) -> None:
        """Remember that the caller belongs to a fleet."""

    async def quote(self, caller: Caller, request: QuoteRequest) -> Signed[Quote]:
        """What a job would cost."""

    async def lease(self, caller: Caller, lease: Signed[Lease], quote: Signed[Quote], upload: InputUpload | None) -> Signed[Accept]:
        """Take a job, and its input if that came along."""

    async def put_input(self, caller: Caller, lease: Digest, upload: InputUpload) -> None:
        """Take its input."""

    async def poll(self, caller: Caller, lease: Digest, after: int, wait_ms: int) -> LeaseStatus:
        """How it stands."""

    async def result(self, caller: Caller, lease: Digest) -> ResultAnswer:
        """Its result."""

    async def reveal(self, caller: Caller, lease: Digest, request: RevealRequest) -> RevealAnswer:
        """The requester's half of the draw."""

    async def cancel(self, caller: Caller, lease: Digest) -> LeaseStatus:
        """Stop it."""

    async def entries(self, caller: Caller, entries: tuple[Signed[Entry], ...]) -> EntriesAnswer:
        """Take payments."""

    async def account(self, caller: Caller, chain: bytes, seq: int) -> AccountAnswer:
        """What we issued to the caller."""

    async def put_object(self, caller: Caller, digest: Digest, upload: Upload) -> UploadAnswer:
        """Take a part of a model."""

    async def get_object(self, caller: Caller, digest: Digest, start: int, length: int) -> ObjectPart:
        """A part of a proof."""
