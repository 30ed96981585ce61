"""The dialling side: one session for each peer, which sends nothing before the peer's key is the expected one."""

import ssl
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import aiohttp

from nexus_edge.errors import IdentityError
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.transport.addresses import join_address
from nexus_edge.transport.errors import BadAnswer, Unreachable, WrongPeer
from nexus_edge.transport.routes import BY_NAME
from nexus_edge.transport.tls import client_context, peer_of
from nexus_edge.types import Digest, NodeId, UnixMs
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.fields import table
from nexus_edge.wire.limits import CONNECTIONS_PER_PEER, KIB, TLS_HANDSHAKE_S
from nexus_edge.wire.messages import (
    AccountAnswer,
    AccountQuery,
    DialbackAnswer,
    DialbackRequest,
    Empty,
    EntriesAnswer,
    EntriesPost,
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
    RefusalBody,
    ResultAnswer,
    RevealAnswer,
    RevealRequest,
    Upload,
    UploadAnswer,
    decode_message,
    encode_message,
)
from nexus_edge.wire.objects import Accept, Caps, Entry, Lease, NodeRecord, Quote, SignedBody
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, read_signed

CONNECT_S: Final = TLS_HANDSHAKE_S + 2.0
"""Dialling and handshake: a peer that takes longer would not be chosen anyway."""
SLACK_S: Final = 5.0
"""What an answer may take beyond the peer's own deadline."""
REFUSAL_LIMIT: Final = 4 * KIB

S = TypeVar("S", bound=SignedBody)
M = TypeVar("M")


class _Pin(aiohttp.Fingerprint):
    """Compares the key of the handshake, before the request leaves. Without an expected key it only reads it."""

    def __init__(self, expected: NodeId | None) -> None:
        super().__init__(bytes(32))
        self._expected = expected
        self.found: NodeId | None = None

    def check(self, transport: Any) -> None:
        """Raise `ServerFingerprintMismatch` for another peer: aiohttp then closes the connection."""
        try:
            self.found = peer_of(transport.get_extra_info("ssl_object"))
        except IdentityError:
            self.found = None
        if self.found is None or self._expected not in (None, self.found):
            host, port, *_ = transport.get_extra_info("peername") or ("", 0)
            raise aiohttp.ServerFingerprintMismatch(self._expected or b"", self.found or b"", host, port)


@dataclass(frozen=True)
class Ping:
    """What a ping finds: round trip, how far the peer's clock is ahead, and our address as it sees it."""

    rtt_ms: float
    skew_ms: int
    address: str


class PeerClient:
    """Dials peers with our key. Close it, or use it as a context."""

    def __init__(self, key: NodeKey) -> None:
        self._context = client_context(key)
        self._connections: dict[tuple[NodeId, str, int], PeerConnection] = {}

    def at(self, peer: NodeId, host: str, port: int) -> "PeerConnection":
        """The peer at an address. Nothing is dialled yet."""
        place = (peer, host, port)
        if place not in self._connections:
            self._connections[place] = PeerConnection(self._context, peer, host, port)
        return self._connections[place]

    async def forget(self, peer: NodeId) -> None:
        """Close the connections to a peer that is gone."""
        for place in [place for place in self._connections if place[0] == peer]:
            await self._connections.pop(place).close()

    async def identify(self, host: str, port: int) -> NodeId:
        """Who answers there. Raises `PeerError`."""
        connection = PeerConnection(self._context, None, host, port)
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
        for connection in self._connections.values():
            await connection.close()
        self._connections.clear()

    async def __aenter__(self) -> "PeerClient":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class PeerConnection:
    """Requests to one peer. Raises `Refusal` where the peer refuses, and `PeerError` where it cannot be asked."""

    def __init__(self, context: ssl.SSLContext, peer: NodeId | None, host: str, port: int) -> None:
        self._context = context
        self._peer = peer
        self._place = join_address(host, port)
        self._pin = _Pin(peer)
        self._session: aiohttp.ClientSession | None = None

    @property
    def found(self) -> NodeId | None:
        """Who answered."""
        return self._pin.found

    async def node(self) -> Signed[NodeRecord]:
        """Its record."""
        return self._signed(await self._ask("node"), NodeRecord)

    async def caps(self) -> Signed[Caps]:
        """Its capabilities."""
        return self._signed(await self._ask("caps"), Caps)

    async def peers(self, request: PeersRequest) -> PeersAnswer:
        """Whom it knows."""
        return self._message(await self._ask("peers", request), PeersAnswer)

    async def ping(self) -> Ping:
        """Round trip and clock."""
        started, at = time.monotonic(), _now()
        answer = self._message(await self._ask("ping", PingRequest(at)), PingAnswer)
        rtt = 1000 * (time.monotonic() - started)
        return Ping(rtt, round(answer.at - at - rtt / 2), answer.addr)

    async def dialback(self, port: int) -> DialbackAnswer:
        """Whether it can reach us."""
        return self._message(await self._ask("dialback", DialbackRequest(port)), DialbackAnswer)

    async def quote(self, request: QuoteRequest) -> Signed[Quote]:
        """What a job would cost."""
        return self._signed(await self._ask("quote", request), Quote)

    async def lease(self, lease: Signed[Lease], quote: Signed[Quote]) -> Signed[Accept]:
        """Order a job."""
        return self._signed(await self._ask("lease", LeaseOffer(lease.to_bytes(), quote.to_bytes())), Accept)

    async def put_input(self, lease: Digest, upload: InputUpload) -> None:
        """Send its input."""
        await self._ask("put_input", upload, digest=lease)

    async def poll(self, lease: Digest, after: int, wait_ms: int) -> LeaseStatus:
        """How it stands."""
        return self._message(await self._ask("poll", query=PollQuery(after, wait_ms), digest=lease), LeaseStatus)

    async def result(self, lease: Digest) -> ResultAnswer:
        """Its result."""
        return self._message(await self._ask("result", digest=lease), ResultAnswer)

    async def reveal(self, lease: Digest, request: RevealRequest) -> RevealAnswer:
        """Our half of the draw."""
        return self._message(await self._ask("reveal", request, digest=lease), RevealAnswer)

    async def cancel(self, lease: Digest) -> LeaseStatus:
        """Stop it."""
        return self._message(await self._ask("cancel", Empty(), digest=lease), LeaseStatus)

    async def entries(self, entries: tuple[Signed[Entry], ...]) -> EntriesAnswer:
        """Pay."""
        return self._message(await self._ask("entries", EntriesPost(tuple(entry.to_bytes() for entry in entries))), EntriesAnswer)

    async def account(self, chain: bytes, seq: int) -> AccountAnswer:
        """What it issued to us."""
        return self._message(await self._ask("account", query=AccountQuery(chain, seq)), AccountAnswer)

    async def put_object(self, digest: Digest, upload: Upload) -> UploadAnswer:
        """Send a part of a model."""
        return self._message(await self._ask("put_object", upload, digest=digest), UploadAnswer)

    async def get_object(self, digest: Digest, start: int, length: int) -> ObjectPart:
        """Fetch a part of a proof."""
        return self._message(await self._ask("get_object", query=PartQuery(start, length), digest=digest), ObjectPart)

    async def close(self) -> None:
        """End the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, name: str, body: object | None = None, *, query: object | None = None, digest: Digest | None = None) -> bytes:
        route = BY_NAME[name]
        path = route.path.replace("{h}", "" if digest is None else digest.hex())
        if query is not None:
            values = {field.key: getattr(query, field.name) for field in table(type(query))}
            path += "?" + urlencode({key: value.hex() if isinstance(value, bytes) else value for key, value in values.items()})
        data = None if body is None else encode_message(body)
        timeout = aiohttp.ClientTimeout(total=route.deadline_s + SLACK_S, sock_connect=CONNECT_S, connect=CONNECT_S)
        headers = {} if data is None else {"Content-Type": "application/cbor"}
        try:
            async with self._opened().request(
                route.method,
                f"https://{self._place}{path}",
                data=data,
                headers=headers,
                ssl=self._context,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                limit = route.answer_limit if response.status in (200, 204) else REFUSAL_LIMIT
                content = await _read(response, limit)
                if response.status not in (200, 204):
                    raise _refusal(content, response.status)
                return content
        except aiohttp.ServerFingerprintMismatch:
            found = "a node without an id" if self._pin.found is None else short_id(self._pin.found)
            expected = "" if self._peer is None else f", expected {short_id(self._peer)}"
            raise WrongPeer(
                f"another node answers at {self._place}", f"{found}{expected}", "the address may have moved to another machine"
            ) from None
        except (TimeoutError, aiohttp.ServerTimeoutError):
            raise Unreachable(
                f"{self._place} does not answer", f"nothing within {timeout.total:g} s", "a firewall, or the peer is overloaded"
            ) from None
        except aiohttp.ClientConnectorCertificateError as refused:
            raise WrongPeer(f"{self._place} is no nexus-edge node", str(refused), "its certificate is not one that nodes make") from None
        except aiohttp.ClientConnectorError as failed:
            raise Unreachable(f"{self._place} cannot be reached", str(failed.os_error), "is the agent up, and the port open?") from None
        except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as failed:
            # With TLS 1.3 a server that refuses our certificate ends a connection that seemed to be up.
            why = f"{type(failed).__name__}: {failed}" if str(failed) else type(failed).__name__
            hint = "the peer may not accept our key (another protocol version, an exclusion), have too many connections, or have stopped"
            raise Unreachable(f"{self._place} ended the connection", why, hint) from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._pin, limit=CONNECTIONS_PER_PEER - 2, force_close=False, keepalive_timeout=4.0)
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
        return self._session

    def _signed(self, data: bytes, kind: type[S]) -> Signed[S]:
        try:
            signed = read_signed(data, kind)
        except BadObject as bad:
            raise BadAnswer(f"{self._place} answered with something else", bad.why) from None
        if signed.issuer != self.found:
            raise BadAnswer(f"{self._place} answered with something else", "another node signed it")
        return signed

    def _message(self, data: bytes, kind: type[M]) -> M:
        try:
            return decode_message(kind, data, len(data))
        except BadObject as bad:
            raise BadAnswer(f"{self._place} answered with something else", bad.why) from None


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            response.close()
            raise BadAnswer("the peer answered with something else", f"more than {limit} bytes")
    return bytes(body)


def _refusal(content: bytes, status: int) -> Exception:
    try:
        body = decode_message(RefusalBody, content, REFUSAL_LIMIT)
        last = None if body.last is None else read_signed(body.last, Entry)
        return Refusal(Code(body.code), body.text, retry_ms=body.retry_ms, last=last, room=body.room)
    except (BadObject, ValueError):
        return BadAnswer("the peer answered with something else", f"status {status} without a reason")


def _now() -> UnixMs:
    return UnixMs(time.time_ns() // 1_000_000)
