"""Exchanges with one peer over one session, which sends nothing before the peer's key is the expected one."""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
from yarl import URL

from nexus_edge.errors import IdentityError, PeerError
from nexus_edge.identity import short_id
from nexus_edge.transport.addresses import join_address
from nexus_edge.transport.bodies import BodyTooLarge, pieces, receive
from nexus_edge.transport.errors import BadAnswer, Unreachable, WrongPeer
from nexus_edge.transport.queries import write_query
from nexus_edge.transport.routes import BY_NAME, Route
from nexus_edge.transport.tls import peer_of
from nexus_edge.types import Digest, NodeId
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import CONNECTIONS_PER_PEER, KIB, TLS_HANDSHAKE_S
from nexus_edge.wire.messages import RefusalBody, decode_message, encode_message
from nexus_edge.wire.objects import Entry
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import read_signed

CONNECT_S: Final = TLS_HANDSHAKE_S + 2.0
"""Dialling and handshake: a peer that takes longer would not be chosen anyway."""
SLACK_S: Final = 5.0
"""What an answer may take beyond the peer's own deadline."""
REFUSAL_LIMIT: Final = 4 * KIB  # its text, and an entry
KEPT_S: Final = 4.0
"""Idle connections are kept for less than the peer keeps them, so that no request meets a connection that is being closed."""
SESSIONS: Final = 256
"""Of peers that we talked to: more than a node works with."""


class Pin(aiohttp.Fingerprint):
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


class Sessions:
    """The sessions that are open, one for each peer; those least used are closed when there are too many."""

    def __init__(self) -> None:
        self._open: OrderedDict[Channel, aiohttp.ClientSession] = OrderedDict()
        self._closed = False

    async def of(self, connection: "Channel") -> aiohttp.ClientSession:
        """The session of a peer, opened if it is not. Raises `Unreachable` after `close`."""
        if self._closed:
            raise Unreachable("no peer is reached any more", "this node is closing")
        session = self._open.get(connection)
        if session is None:
            connector = aiohttp.TCPConnector(ssl=connection.pin, limit=CONNECTIONS_PER_PEER - 2, keepalive_timeout=KEPT_S)
            session = self._open[connection] = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
        self._open.move_to_end(connection)
        for other in [other for other in self._open if not other.asking][: max(0, len(self._open) - SESSIONS)]:
            await self.end(other)
        return session

    async def end(self, connection: "Channel") -> None:
        """Close the session of a peer, if there is one."""
        session = self._open.pop(connection, None)
        if session is not None:
            await session.close()

    async def close(self) -> None:
        """Close all, for good."""
        self._closed = True
        for connection in list(self._open):
            await self.end(connection)


class Channel:
    """Asks one peer at one address."""

    def __init__(self, context: ssl.SSLContext, sessions: Sessions, peer: NodeId | None, host: str, port: int) -> None:
        self._context = context
        self._sessions = sessions
        self._peer = peer
        self._host = host
        self._port = port
        self.place = join_address(host, port)
        self.pin = Pin(peer)
        self.asking = 0
        """Requests under way."""

    @property
    def found(self) -> NodeId | None:
        """Who answered."""
        return self.pin.found

    async def close(self) -> None:
        """End the connection. The next request opens another."""
        await self._sessions.end(self)

    async def ask(self, name: str, body: object | None = None, *, query: object | None = None, digest: Digest | None = None) -> bytes:
        """Make one request of the table of routes; returns the answer's bytes. Raises `Refusal` and `PeerError`."""
        route = BY_NAME[name]
        path = route.path.replace("{h}", "" if digest is None else digest.hex())
        try:
            url = URL.build(
                scheme="https", host=self._host, port=self._port, path=path, query_string="" if query is None else write_query(query)
            )
        except ValueError as malformed:
            raise Unreachable(f"{self.place} is no address", str(malformed)) from None
        data = None if body is None else encode_message(body)
        self.asking += 1
        try:
            return await self._exchange(await self._sessions.of(self), route, url, data)
        except (aiohttp.ClientError, OSError, UnicodeError) as failed:  # timeouts and TLS errors are OSErrors
            raise self._explained(failed) from None
        except asyncio.CancelledError:
            # A session that is closed cancels the requests that wait for one of its connections: nobody stopped the task that asks.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Unreachable(f"{self.place} was not asked", "its connection was ended here meanwhile") from None
        finally:
            self.asking -= 1

    async def _exchange(self, session: aiohttp.ClientSession, route: Route, url: URL, data: bytes | None) -> bytes:
        timeout = aiohttp.ClientTimeout(total=route.deadline_s + SLACK_S, sock_connect=CONNECT_S, connect=CONNECT_S)
        headers = {} if data is None else {"Content-Type": "application/cbor", "Content-Length": str(len(data))}
        if session.closed:
            raise Unreachable(f"{self.place} was not asked", "its connection was ended here meanwhile")
        async with session.request(
            route.method,
            url,
            data=None if data is None else _sent(data),
            headers=headers,
            ssl=self._context,
            timeout=timeout,
            allow_redirects=False,
        ) as response:
            accepted = response.status in (200, 204)
            try:
                content = await receive(response.content, route.answer_limit if accepted else REFUSAL_LIMIT)
            except BodyTooLarge:
                response.close()
                raise BadAnswer(f"{self.place} answered with something else", "more than the answer to this may have") from None
            if not accepted:
                raise self._refusal(content, response.status)
            return content

    def _explained(self, failed: Exception) -> PeerError:
        """What went wrong, and the likely cause."""
        match failed:
            case aiohttp.ServerFingerprintMismatch():
                found = "a node without an id" if self.pin.found is None else short_id(self.pin.found)
                expected = "" if self._peer is None else f", expected {short_id(self._peer)}"
                hint = "the address may have moved to another machine"
                return WrongPeer(f"another node answers at {self.place}", f"{found}{expected}", hint)
            case aiohttp.ClientConnectorError(os_error=ssl.SSLError() as refused):
                hint = "another service has this port, or a node of another version"
                return WrongPeer(f"{self.place} is no nexus-edge node", str(refused), hint)
            case aiohttp.ClientConnectorError(os_error=ConnectionResetError()):
                hint = "another service may have this port, or the node has too many connections from here"
                return Unreachable(f"{self.place} ended the connection", "it was reset during the handshake", hint)
            case aiohttp.ClientConnectorError():
                return Unreachable(f"{self.place} cannot be reached", str(failed.os_error), "is the agent up, and the port open?")
            case TimeoutError():
                why = f"no connection within {CONNECT_S:g} s, or no answer in time"
                return Unreachable(f"{self.place} does not answer", why, "a firewall, or the peer is overloaded")
            case UnicodeError():
                return Unreachable(f"{self.place} is no address", str(failed))
            case _:  # with TLS 1.3 a server that refuses our certificate ends a connection that seemed to be up
                why = f"{type(failed).__name__}: {failed}" if str(failed) else type(failed).__name__
                hint = (
                    "the peer may not accept our key (another protocol version, an exclusion), have too many connections, or have stopped"
                )
                return Unreachable(f"{self.place} ended the connection", why, hint)

    def _refusal(self, content: bytes, status: int) -> Exception:
        try:
            body = decode_message(RefusalBody, content, REFUSAL_LIMIT)
            last = None if body.last is None else read_signed(body.last, Entry)
            return Refusal(Code(body.code), body.text, retry_ms=body.retry_ms, last=last, room=body.room)
        except (BadObject, ValueError):
            return BadAnswer(f"{self.place} answered with something else", f"status {status} without a reason")


async def _sent(data: bytes) -> AsyncIterator[memoryview]:
    for piece in pieces(data):
        yield piece
