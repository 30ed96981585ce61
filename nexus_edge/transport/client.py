"""The dialling side: a typed method for each request."""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar
from weakref import WeakValueDictionary

from nexus_edge.clock import now_ms
from nexus_edge.identity import NodeKey
from nexus_edge.transport.addresses import join_address
from nexus_edge.transport.channel import Channel, Sessions
from nexus_edge.transport.errors import BadAnswer, WrongPeer
from nexus_edge.transport.tls import client_context
from nexus_edge.types import Digest, NodeId
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.messages import (
    AccountAnswer,
    AccountQuery,
    DialbackAnswer,
    DialbackRequest,
    Empty,
    EntriesAnswer,
    EntriesPost,
    GroupPost,
    GroupsAnswer,
    InputUpload,
    LeaseOffer,
    LeaseStatus,
    ObjectPart,
    PartQuery,
    PeersAnswer,
    PeersRequest,
    PingAnswer,
    PingRequest,
    PollQuery,
    QuoteRequest,
    ResultAnswer,
    RevealAnswer,
    RevealRequest,
    Upload,
    UploadAnswer,
    decode_message,
)
from nexus_edge.wire.objects import Accept, Caps, Entry, GroupCertificate, Lease, NodeRecord, Quote, SignedBody
from nexus_edge.wire.refusals import Refusal
from nexus_edge.wire.signing import Signed, read_signed

S = TypeVar("S", bound=SignedBody)
M = TypeVar("M")


@dataclass(frozen=True)
class Ping:
    """What a ping finds: round trip, how far the peer's clock is ahead, our address as it sees it, and whether it reaches us."""

    rtt_ms: float
    skew_ms: int
    address: str
    is_known: bool


class PeerClient:
    """Dials peers with our key. Close it, or use it as a context."""

    def __init__(self, key: NodeKey) -> None:
        self._context = client_context(key)
        self._sessions = Sessions()
        self._connections: WeakValueDictionary[tuple[NodeId, str, int], PeerConnection] = WeakValueDictionary()

    def at(self, peer: NodeId, host: str, port: int) -> "PeerConnection":
        """The peer at an address. Nothing is dialled yet."""
        place = (peer, host, port)
        connection = self._connections.get(place)
        if connection is None:
            connection = self._connections[place] = PeerConnection(self._context, self._sessions, peer, host, port)
        return connection

    async def forget(self, peer: NodeId) -> None:
        """Close the connections to a peer that is gone."""
        for place, connection in list(self._connections.items()):
            if place[0] == peer:
                await connection.close()

    async def identify(self, host: str, port: int) -> NodeId:
        """Who answers there. Raises `PeerError`."""
        connection = PeerConnection(self._context, self._sessions, None, host, port)
        try:
            await connection.ping()
        except Refusal:
            pass  # whoever refuses has proved its key
        finally:
            await connection.close()
        if connection.found is None:
            raise WrongPeer(f"nobody can be identified at {join_address(host, port)}")
        return connection.found

    async def close(self) -> None:
        """End every connection."""
        await self._sessions.close()

    async def __aenter__(self) -> "PeerClient":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class PeerConnection(Channel):
    """Requests to one peer. Raises `Refusal` where the peer refuses, and `PeerError` where it cannot be asked."""

    async def node(self) -> Signed[NodeRecord]:
        """Its record."""
        return self._signed(await self.ask("node"), NodeRecord)

    async def caps(self) -> Signed[Caps]:
        """Its capabilities."""
        return self._signed(await self.ask("caps"), Caps)

    async def peers(self, request: PeersRequest) -> PeersAnswer:
        """Whom it knows."""
        return self._message(await self.ask("peers", request), PeersAnswer)

    async def ping(self) -> Ping:
        """Round trip and clock."""
        started, at = time.monotonic(), now_ms()
        answer = self._message(await self.ask("ping", PingRequest(at)), PingAnswer)
        rtt = 1000 * (time.monotonic() - started)
        return Ping(rtt, round(answer.at - at - rtt / 2), answer.addr, answer.known)

    async def dialback(self, port: int) -> DialbackAnswer:
        """Whether it can reach us."""
        return self._message(await self.ask("dialback", DialbackRequest(port)), DialbackAnswer)

    async def groups(self) -> tuple[Signed[GroupCertificate], ...]:
        """The fleets that it says it belongs to: certificates that their keys signed, for whomever."""
        answer = self._message(await self.ask("groups"), GroupsAnswer)
        return tuple(self._read(one, GroupCertificate) for one in answer.certificates)

    async def join(self, certificate: Signed[GroupCertificate]) -> None:
        """Show it a certificate that names us."""
        await self.ask("join", GroupPost(certificate.to_bytes()))

    async def quote(self, request: QuoteRequest) -> Signed[Quote]:
        """What a job would cost."""
        return self._signed(await self.ask("quote", request), Quote)

    async def lease(self, lease: Signed[Lease], quote: Signed[Quote], upload: InputUpload | None = None) -> Signed[Accept]:
        """Order a job, and give its input if that is small."""
        return self._signed(await self.ask("lease", LeaseOffer(lease.to_bytes(), quote.to_bytes(), upload)), Accept)

    async def put_input(self, lease: Digest, upload: InputUpload) -> None:
        """Send its input."""
        await self.ask("put_input", upload, digest=lease)

    async def poll(self, lease: Digest, after: int, wait_ms: int) -> LeaseStatus:
        """How it stands."""
        return self._message(await self.ask("poll", query=PollQuery(after, wait_ms), digest=lease), LeaseStatus)

    async def result(self, lease: Digest) -> ResultAnswer:
        """Its result."""
        return self._message(await self.ask("result", digest=lease), ResultAnswer)

    async def reveal(self, lease: Digest, request: RevealRequest) -> RevealAnswer:
        """Our half of the draw."""
        return self._message(await self.ask("reveal", request, digest=lease), RevealAnswer)

    async def cancel(self, lease: Digest) -> LeaseStatus:
        """Stop it."""
        return self._message(await self.ask("cancel", Empty(), digest=lease), LeaseStatus)

    async def entries(self, entries: tuple[Signed[Entry], ...]) -> EntriesAnswer:
        """Pay."""
        return self._message(await self.ask("entries", EntriesPost(tuple(entry.to_bytes() for entry in entries))), EntriesAnswer)

    async def account(self, chain: bytes, seq: int) -> AccountAnswer:
        """What it issued to us."""
        return self._message(await self.ask("account", query=AccountQuery(chain, seq)), AccountAnswer)

    async def put_object(self, digest: Digest, upload: Upload) -> UploadAnswer:
        """Send a part of a model."""
        return self._message(await self.ask("put_object", upload, digest=digest), UploadAnswer)

    async def get_object(self, digest: Digest, start: int, length: int) -> ObjectPart:
        """Fetch a part of a proof."""
        return self._message(await self.ask("get_object", query=PartQuery(start, length), digest=digest), ObjectPart)

    def _signed(self, data: bytes, kind: type[S]) -> Signed[S]:
        signed = self._read(data, kind)
        if signed.issuer != self.found:
            raise BadAnswer(f"{self.place} answered with something else", "another node signed it")
        return signed

    def _read(self, data: bytes, kind: type[S]) -> Signed[S]:
        try:
            return read_signed(data, kind)
        except BadObject as bad:
            raise BadAnswer(f"{self.place} answered with something else", bad.why) from None

    def _message(self, data: bytes, kind: type[M]) -> M:
        try:
            return decode_message(kind, data, len(data))
        except BadObject as bad:
            raise BadAnswer(f"{self.place} answered with something else", bad.why) from None
