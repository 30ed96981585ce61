"""The listening side: counts connections before their handshake, ends each within its deadline, and hands typed requests to handlers."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import structlog
from aiohttp import web

from nexus_edge.errors import IdentityError, NexusEdgeError
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.transport.addresses import Caller, prefix_of
from nexus_edge.transport.rates import Rates
from nexus_edge.transport.routes import ROUTES, Route
from nexus_edge.transport.tls import peer_of, server_context
from nexus_edge.types import Digest
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.fields import Integer, table
from nexus_edge.wire.limits import (
    CONNECTIONS,
    CONNECTIONS_PER_PEER,
    CONNECTIONS_PER_PREFIX,
    HEADER_S,
    LONG_POLLS_PER_PEER,
    REQUESTS_BURST,
    REQUESTS_PER_PEER,
    TLS_HANDSHAKE_S,
    UPLOADS_PER_PEER,
)
from nexus_edge.wire.messages import (
    AccountAnswer,
    EntriesAnswer,
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
    decode_message,
    encode_message,
)
from nexus_edge.wire.objects import Accept, Caps, Entry, Lease, NodeRecord, Quote
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed

BACKLOG: Final = 128
"""Connections that the kernel holds until we accept them."""
LINGER_S: Final = 1.0
"""How long a client may go on sending what nobody reads, before it is cut."""
SHUTDOWN_S: Final = 1.0

log = structlog.get_logger("transport")


class PeerHandlers(Protocol):
    """What a node does for its peers. Raising `Refusal` refuses. Ping and dialback are in `nexus_edge.transport.answering`."""

    async def node(self) -> Signed[NodeRecord]:
        """Our record."""

    async def caps(self) -> Signed[Caps]:
        """Our capabilities."""

    async def peers(self, caller: Caller, request: PeersRequest) -> PeersAnswer:
        """A sample of reachable peers."""

    async def quote(self, caller: Caller, request: QuoteRequest) -> Signed[Quote]:
        """What a job would cost."""

    async def lease(self, caller: Caller, lease: Signed[Lease], quote: Signed[Quote]) -> Signed[Accept]:
        """Take a job."""

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


Answerer = Callable[[Route, Caller, Mapping[str, str], Any, Any], Awaitable[bytes | None]]
"""Gets route, caller, captures of the path, body and query; returns the answer's bytes."""


class PeerServer:
    """Listens on the mesh port. One `web.Server` below, without its application: the table of routes is ours."""

    def __init__(self, key: NodeKey, answer: Answerer) -> None:
        self._key = key
        self._answer = answer
        self._context = server_context(key)
        self._rates = Rates(REQUESTS_PER_PEER, REQUESTS_BURST)
        self._busy: Counter[tuple[str, str, bytes]] = Counter()
        self._server = _Connections(
            self._handle,
            access_log=None,
            keepalive_timeout=HEADER_S,
            lingering_time=LINGER_S,
            max_line_size=1024,
            max_field_size=2048,
            max_headers=32,
            auto_decompress=False,
        )
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; `port` 0 takes a free one, which `self.port` then names. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            listener = socket.socket(family, kind, protocol)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address[0], self.port or port, *address[2:]))
                listener.listen(BACKLOG)
                listener.setblocking(False)
            except BaseException:
                listener.close()
                raise
            self._sockets.append(listener)
            self.port = listener.getsockname()[1]
            self._spawn(self._accept(listener), "accept")

    async def close(self) -> None:
        """Stop listening and end every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._sockets:
            listener.close()
        self._server.pre_shutdown()
        await self._server.shutdown(SHUTDOWN_S)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as failed:  # out of descriptors: those who wait are served when some are free
                log.warning("cannot accept", reason=str(failed))
                await asyncio.sleep(0.1)
                continue
            prefix = prefix_of(address[0])
            # Before the handshake: a surplus connection costs no cryptography.
            if not self._server.admit(prefix):
                connection.close()
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._spawn(self._connect(connection, prefix), "connect")

    async def _connect(self, connection: socket.socket, prefix: str) -> None:
        """The handshake; the connection then belongs to the `web.Server`."""
        loop = asyncio.get_running_loop()
        handler = self._server()
        self._server.expect(handler, prefix)
        try:
            await loop.connect_accepted_socket(
                lambda: handler, connection, ssl=self._context, ssl_handshake_timeout=TLS_HANDSHAKE_S, ssl_shutdown_timeout=SHUTDOWN_S
            )
        except (OSError, TimeoutError):
            connection.close()
            self._server.forget(handler)
        except asyncio.CancelledError:
            connection.close()
            self._server.forget(handler)
            raise

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            caller = self._caller(request)
        except IdentityError as stranger:
            return _refuse(Refusal(Code.NOT_YOURS, str(stranger)))
        try:
            answer = await self._serve(caller, request)
        except Refusal as refusal:
            return _refuse(refusal)
        except BadObject as bad:
            return _refuse(Refusal(Code.BAD_OBJECT, bad.why))
        except NexusEdgeError as failed:
            log.error("a request failed", peer=short_id(caller.peer), path=request.path[:80], reason=str(failed))
            return _refuse(Refusal(Code.INTERNAL, "this node has a fault of its own", retry_ms=5000))
        if answer is None:
            return web.Response(status=204)
        return web.Response(body=answer, content_type="application/cbor")

    def _caller(self, request: web.BaseRequest) -> Caller:
        transport = request.transport
        if transport is None:
            raise IdentityError("the connection is gone")
        peer = self._server.peer(request.protocol, transport)
        address = transport.get_extra_info("peername") or ("", 0)
        return Caller(peer, address[0], address[1])

    async def _serve(self, caller: Caller, request: web.BaseRequest) -> bytes | None:
        wait = self._rates.take(caller.peer)
        if wait:
            raise Refusal(Code.RATE, f"at most {REQUESTS_PER_PEER} requests a second", retry_ms=int(1000 * wait) + 1)
        route, captures = _find(request.method, request.path)
        with self._slot(route, caller):
            try:
                async with asyncio.timeout(route.deadline_s):
                    body = decode_message(route.body, await _read(request, route), route.request_limit) if route.body is not None else None
                    query = None if route.query is None else _query(route.query, request.query_string)
                    return await self._answer(route, caller, captures, body, query)
            except TimeoutError:
                raise Refusal(Code.TIMEOUT, f"not done within {route.deadline_s:g} s", retry_ms=1000) from None

    @contextlib.contextmanager
    def _slot(self, route: Route, caller: Caller) -> Any:
        """Long polls and uploads hold something of ours: so many for each peer."""
        most = {"poll": LONG_POLLS_PER_PEER, "put_input": UPLOADS_PER_PEER, "put_object": UPLOADS_PER_PEER}.get(route.name)
        if most is None:
            yield
            return
        slot = ("slot", route.name, caller.peer)
        if self._busy[slot] >= most:
            raise Refusal(Code.RATE, f"at most {most} of these at once", retry_ms=1000)
        self._busy[slot] += 1
        try:
            yield
        finally:
            self._busy[slot] -= 1
            if not self._busy[slot]:
                del self._busy[slot]

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=f"{name} on mesh port")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Connections(web.Server):
    """Counts connections by prefix from accept, and by peer from handshake, until they are lost."""

    def __init__(self, handler: Any, **options: Any) -> None:
        super().__init__(handler, **options)
        self._prefixes: Counter[str] = Counter()
        self._prefix_of: dict[Any, str] = {}
        self._peers: Counter[bytes] = Counter()
        self._peer_of: dict[Any, Any] = {}
        self._total = 0

    def admit(self, prefix: str) -> bool:
        """Whether one more connection from there may have its handshake; if so it is counted."""
        if self._total >= CONNECTIONS or self._prefixes[prefix] >= CONNECTIONS_PER_PREFIX:
            return False
        self._total += 1
        self._prefixes[prefix] += 1
        return True

    def expect(self, handler: Any, prefix: str) -> None:
        """The connection of a handler has been admitted."""
        self._prefix_of[handler] = prefix

    def forget(self, handler: Any) -> None:
        """It has ended, whether or not its handshake was done."""
        prefix = self._prefix_of.pop(handler, None)
        if prefix is None:
            return
        self._total -= 1
        self._prefixes[prefix] -= 1
        if not self._prefixes[prefix]:
            del self._prefixes[prefix]
        peer = self._peer_of.pop(handler, None)
        if peer is not None:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

    def connection_made(self, handler: Any, transport: Any) -> None:
        """After the handshake."""
        super().connection_made(handler, transport)
        try:
            peer = peer_of(transport.get_extra_info("ssl_object"))
        except IdentityError:
            transport.close()
            return
        self._peer_of[handler] = peer
        self._peers[peer] += 1
        if self._peers[peer] > CONNECTIONS_PER_PEER:
            transport.close()

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        """For whatever reason."""
        super().connection_lost(handler, exc)
        self.forget(handler)

    def peer(self, handler: Any, _: Any) -> Any:
        """The key that the connection's handshake proved. Raises `IdentityError`."""
        peer = self._peer_of.get(handler)
        if peer is None:
            raise IdentityError("the peer has no id")
        return peer


def _find(method: str, path: str) -> tuple[Route, Mapping[str, str]]:
    for route in ROUTES:
        match = route.pattern.fullmatch(path)
        if match and route.method == method:
            return route, match.groupdict()
    version = path.split("/", 2)[1:2]
    if version and version[0].isdigit() and version[0] != "1":
        raise Refusal(Code.VERSION, "this node speaks version 1")
    raise Refusal(Code.NOT_FOUND, "there is no such request")


async def _read(request: web.BaseRequest, route: Route) -> bytes:
    """The body, never more of it than the route allows."""
    length = request.content_length
    if length is not None and length > route.request_limit:
        raise Refusal(Code.TOO_LARGE, f"{length} bytes, at most {route.request_limit} are taken")
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > route.request_limit:
            raise Refusal(Code.TOO_LARGE, f"at most {route.request_limit} bytes are taken")
    return bytes(body)


def _query(kind: type, text: str) -> Any:
    """Integers in decimal, byte strings in hexadecimal; every field, and no others."""
    given = parse_qsl(text, max_num_fields=8)
    values = dict(given)
    fields = table(kind)
    if len(given) != len(fields) or set(values) != {field.key for field in fields}:
        raise BadObject(f"the query must have {', '.join(field.key for field in fields)}")
    found = {}
    for field in fields:
        try:
            value = int(values[field.key]) if isinstance(field.kind, Integer) else bytes.fromhex(values[field.key])
        except ValueError:
            raise BadObject(f"{field.key}: malformed") from None
        found[field.name] = field.kind.read(value)
    return kind(**found)


def _refuse(refusal: Refusal) -> web.Response:
    headers = {} if refusal.retry_ms is None else {"Retry-After": str(-(-refusal.retry_ms // 1000))}
    response = web.Response(
        status=refusal.code.status, body=encode_message(refusal.body()), content_type="application/cbor", headers=headers
    )  # fmt: skip
    if refusal.code in (Code.TOO_LARGE, Code.TIMEOUT):
        response.force_close()
    return response
