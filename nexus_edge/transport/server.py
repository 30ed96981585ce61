"""The listening side: accepts, makes the handshake, and hands typed requests to handlers, each within its deadline."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, Final

import structlog
from aiohttp import web

from nexus_edge.errors import NexusEdgeError
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.transport.addresses import Caller, prefix_of
from nexus_edge.transport.bodies import BodySpace, BodyTooLarge, pieces, receive
from nexus_edge.transport.connections import Connection, Connections, refuse
from nexus_edge.transport.queries import read_query
from nexus_edge.transport.rates import Once, Rates
from nexus_edge.transport.routes import ROUTES, Route
from nexus_edge.transport.tls import server_context
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import (
    ANSWER_PER_REQUEST,
    LONG_POLLS_PER_PEER,
    REQUESTS_BURST,
    REQUESTS_PER_LEASE,
    REQUESTS_PER_PEER,
    TLS_HANDSHAKE_S,
    UPLOADS_PER_PEER,
)
from nexus_edge.wire.messages import decode_message
from nexus_edge.wire.refusals import Code, Refusal

BACKLOG: Final = 128
"""Connections that the kernel holds until we accept them."""
SHUTDOWN_S: Final = 1.0
"""For what is under way when we close, and for the end of one TLS connection."""
PEERS_PER_PREFIX: Final = 4
"""Ids cost nothing, so a prefix is counted like so many peers, however many ids it shows."""

log = structlog.get_logger("transport")

GIVEN_UP: Final = ("poll", "put_object")
"""Requests that nobody needs once their connection is gone: news that is waited for, and a model that is prepared for the caller."""

Answerer = Callable[[Route, Caller, Mapping[str, str], Any, Any], Awaitable[bytes | None]]
"""Gets route, caller, captures of the path, body and query; returns the answer's bytes."""


class PeerServer:
    """Listens on the mesh port. One `web.Server` below, without its application: the table of routes is ours."""

    def __init__(self, key: NodeKey, answer: Answerer) -> None:
        self._answer = answer
        self._context = server_context(key)
        self._rates = Rates(REQUESTS_PER_PEER, REQUESTS_BURST)
        self._prefix_rates = Rates(PEERS_PER_PREFIX * REQUESTS_PER_PEER, PEERS_PER_PREFIX * REQUESTS_BURST)
        self._is_new_lease = Once()
        self._busy: Counter[tuple[str, bytes]] = Counter()
        self._space = BodySpace()
        self._connections = Connections(self._handle)
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def connections(self) -> int:
        """How many there are."""
        return self._connections.count

    async def start(self, host: str, port: int) -> None:
        """Listen; `port` 0 takes a free one, which `self.port` then names. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            listener = socket.socket(family, kind, protocol)
            self._sockets.append(listener)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address[0], self.port or port, *address[2:]))
                listener.listen(BACKLOG)
                listener.setblocking(False)
            except BaseException:
                await self.close()
                raise
            self.port = listener.getsockname()[1]
            self._spawn(self._accept(listener), "accept")

    async def close(self) -> None:
        """Stop listening and end every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener in self._sockets:
            listener.close()
        self._sockets.clear()
        await self._connections.end(SHUTDOWN_S)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listener)
            except OSError as failed:  # out of descriptors: those who wait are served when some are free
                log.warning("cannot accept", reason=str(failed))
                await asyncio.sleep(0.1)
                continue
            # Before the handshake: a surplus connection costs no cryptography.
            connection = self._connections.admit(prefix_of(address[0]))
            if connection is None:
                accepted.close()
                continue
            self._spawn(self._connect(accepted, connection), "handshake")

    async def _connect(self, accepted: socket.socket, connection: Connection) -> None:
        """The handshake. After it the connection ends itself."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=self._context, ssl_handshake_timeout=TLS_HANDSHAKE_S, ssl_shutdown_timeout=SHUTDOWN_S
            )
        except BaseException as failed:
            accepted.close()
            self._connections.forget(connection)
            if not isinstance(failed, OSError):  # of which TLS errors and timeouts are
                raise

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        address = connection.peername
        if connection.peer is None or not isinstance(address, tuple):
            raise ConnectionError("it is closing")
        caller = Caller(connection.peer, address[0], address[1])
        wait = max(self._rates.take(caller.peer), self._prefix_rates.take(caller.prefix))
        if wait:
            # Answered late: whoever does not heed it is slowed down to the rate, on each of its few connections.
            await asyncio.sleep(wait)
            return refuse(Refusal(Code.RATE, f"at most {REQUESTS_PER_PEER} requests a second", retry_ms=int(1000 * wait) + 1))
        try:
            answer = await self._serve(caller, request, connection)
            self._charge(caller, 0 if answer is None else len(answer))
            return await self._send(request, caller, answer)
        except Refusal as refusal:
            return refuse(refusal)
        except BadObject as bad:
            return refuse(Refusal(Code.BAD_OBJECT, bad.why))
        except web.RequestPayloadError:
            return refuse(Refusal(Code.BAD_OBJECT, "the body is not as its headers say"), last=True)
        except NexusEdgeError as failed:
            log.error("a request failed", peer=short_id(caller.peer), path=request.path[:80], reason=str(failed))
            return refuse(Refusal(Code.INTERNAL, "this node has a fault of its own", retry_ms=5000))

    async def _serve(self, caller: Caller, request: web.BaseRequest, connection: Connection) -> bytes | None:
        route, captures = _find(request.method, request.path)
        size = 0 if route.body is None else _size(request, route)
        with self._slot(route, caller, connection), self._space.held(caller.prefix, size):
            try:
                async with asyncio.timeout(route.deadline_s):
                    body = None if route.body is None else await _body(request, route, route.body)
                    query = None if route.query is None else read_query(route.query, request.query_string)
                    answer = await self._answer(route, caller, captures, body, query)
                    if route.name == "lease" and self._is_new_lease(answer):
                        self._allow(caller)
                    return answer
            except TimeoutError:
                raise Refusal(Code.TIMEOUT, f"not done within {route.deadline_s:g} s, or too slow", retry_ms=1000) from None

    def _allow(self, caller: Caller) -> None:
        """The rate is against chatter. Whoever orders work, and has the credit for it, gets the requests that this takes."""
        self._rates.give(caller.peer, REQUESTS_PER_LEASE)
        self._prefix_rates.give(caller.prefix, REQUESTS_PER_LEASE)

    def _charge(self, caller: Caller, size: int) -> None:
        """A large answer was read from the disk and put together, whether or not it will be read: it counts as so many requests."""
        self._rates.charge(caller.peer, size // ANSWER_PER_REQUEST)
        self._prefix_rates.charge(caller.prefix, size // ANSWER_PER_REQUEST)

    async def _send(self, request: web.BaseRequest, caller: Caller, answer: bytes | None) -> web.StreamResponse:
        """In pieces, so that little more than what the other side has read is copied; `Connection` ends it if that is too slow."""
        if answer is None:
            return web.Response(status=204)
        with self._space.held(caller.prefix, len(answer)):
            response = web.StreamResponse(headers={"Content-Type": "application/cbor", "Content-Length": str(len(answer))})
            await response.prepare(request)
            for piece in pieces(answer):
                await response.write(piece)
            await response.write_eof()
            return response

    @contextlib.contextmanager
    def _slot(self, route: Route, caller: Caller, connection: Connection) -> Iterator[None]:
        """Long polls and uploads hold something of ours: so many for each peer."""
        most = {"poll": LONG_POLLS_PER_PEER, "put_input": UPLOADS_PER_PEER, "put_object": UPLOADS_PER_PEER}.get(route.name)
        if most is None:
            yield
            return
        slot = (route.name, caller.peer)
        if self._busy[slot] >= most:
            raise Refusal(Code.RATE, f"at most {most} of these at once", retry_ms=1000)
        self._busy[slot] += 1
        connection.waiting = asyncio.current_task() if route.name in GIVEN_UP else None
        try:
            yield
        finally:
            connection.waiting = None
            self._busy[slot] -= 1
            if not self._busy[slot]:
                del self._busy[slot]

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"mesh port: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _find(method: str, path: str) -> tuple[Route, Mapping[str, str]]:
    for route in ROUTES:
        match = route.pattern.fullmatch(path)
        if match and route.method == method:
            return route, match.groupdict()
    version = path.split("/", 2)[1:2]
    if version and version[0].isdecimal() and version[0] != "1":
        raise Refusal(Code.VERSION, "this node speaks version 1")
    raise Refusal(Code.NOT_FOUND, "there is no such request")


def _size(request: web.BaseRequest, route: Route) -> int:
    """What the body may take: what it says, or all that the route allows."""
    try:
        length = request.content_length
    except ValueError:
        raise BadObject("the length of the body is no number") from None
    if length is None:
        return route.request_limit
    if length > route.request_limit:
        raise Refusal(Code.TOO_LARGE, f"{length} bytes, at most {route.request_limit} are taken")
    return length


async def _body(request: web.BaseRequest, route: Route, kind: type) -> Any:
    try:
        content = await receive(request.content, route.request_limit)
    except BodyTooLarge:
        raise Refusal(Code.TOO_LARGE, f"at most {route.request_limit} bytes are taken") from None
    return decode_message(kind, content, route.request_limit)
