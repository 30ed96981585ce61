"""Connections of the mesh port: counted from their accept to their end, and ended when the other side does not read.

aiohttp ends connections that are idle or whose headers do not end (`keepalive_timeout`). What it does not do is here.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from aiohttp import web

from nexus_edge.errors import IdentityError
from nexus_edge.transport.bodies import WINDOW_BYTES, WINDOW_S
from nexus_edge.transport.rates import Rates
from nexus_edge.transport.tls import peer_of
from nexus_edge.types import NodeId
from nexus_edge.wire.limits import CONNECTIONS, CONNECTIONS_PER_PEER, CONNECTIONS_PER_PREFIX, HEADER_S
from nexus_edge.wire.messages import encode_message
from nexus_edge.wire.refusals import Code, Refusal

LINGER_S: Final = 1.0
"""How long a client may go on sending what nobody reads, before it is cut."""
MOST_HEADERS: Final = 32  # five times what our client sends
LONGEST_LINE: Final = 1024  # the longest path and query have 120
LONGEST_HEADER: Final = 2048
"""Our client's requests have 6 headers and fit into a quarter of this."""
ACCEPTS_PER_PREFIX: Final = 32
"""Per second. A handshake costs us one and a half milliseconds of the loop: a prefix gets 5 % of it."""
ACCEPTS_BURST: Final = 128  # four busy peers that all come back at once

log = structlog.get_logger("transport")


class Connection(web.RequestHandler):
    """One connection; `peer` is known after the handshake."""

    def __init__(self, manager: "Connections", prefix: str, **options: Any) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **options)
        self.prefix = prefix
        self.peer: NodeId | None = None
        self.waiting: asyncio.Task[Any] | None = None
        """A request that only waits for news, and that nobody needs once the connection is gone."""
        self._channel: asyncio.Transport | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """After the handshake."""
        assert isinstance(transport, asyncio.Transport)
        self._channel = transport
        # Writing is paused by a window's bytes, and goes on when all of them are gone: how long that may take is the least rate.
        transport.set_write_buffer_limits(high=WINDOW_BYTES, low=0)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """The other side does not read, or not as fast as we write."""
        super().pause_writing()
        self._stalled = asyncio.get_running_loop().call_later(WINDOW_S, self.abort)

    def resume_writing(self) -> None:
        """It has read all."""
        self._resume()
        super().resume_writing()

    def abort(self) -> None:
        """End it now, whatever is under way."""
        if self._channel is not None:
            self._channel.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """For whatever reason."""
        self._resume()
        if self.waiting is not None:
            self.waiting.cancel()
        super().connection_lost(exc)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is no HTTP is refused like every other bad body, without a trace in the log that a stranger could fill it with."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("there is nobody to tell, or the answer has begun") from exc
        if status == 500:
            log.error("a request failed", path=request.path[:80], exc_info=exc)
            return refuse(Refusal(Code.INTERNAL, "this node has a fault of its own", retry_ms=5000), last=True)
        return refuse(Refusal(Code.BAD_OBJECT, (message or "malformed request").partition("\n")[0]), last=True)

    def _resume(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class Connections(web.Server):
    """All of them, counted by prefix from accept, and by peer from handshake."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler)
        self._prefixes: Counter[str] = Counter()
        self._peers: Counter[NodeId] = Counter()
        self._accepts = Rates(ACCEPTS_PER_PREFIX, ACCEPTS_BURST)
        self._open: set[Connection] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()

    @property
    def count(self) -> int:
        """How many there are, with those in their handshake."""
        return self._prefixes.total()

    def admit(self, prefix: str) -> Connection | None:
        """One more connection from there, if it may have its handshake. Whoever gets it ends it with `forget` if the handshake fails."""
        if self.count >= CONNECTIONS or self._prefixes[prefix] >= CONNECTIONS_PER_PREFIX or self._accepts.take(prefix):
            return None
        self._prefixes[prefix] += 1
        return Connection(
            self, prefix, access_log=None, keepalive_timeout=HEADER_S, lingering_time=LINGER_S, max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_HEADER, max_headers=MOST_HEADERS, auto_decompress=False,
        )  # fmt: skip

    def forget(self, connection: Connection) -> None:
        """It has ended."""
        _take_one(self._prefixes, connection.prefix)
        if connection.peer is not None:
            _take_one(self._peers, connection.peer)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """After the handshake: counted by peer too."""
        super().connection_made(handler, transport)
        assert isinstance(handler, Connection)
        self._open.add(handler)
        self._none_open.clear()
        try:
            handler.peer = peer_of(transport.get_extra_info("ssl_object"))
        except IdentityError:
            transport.close()
            return
        self._peers[handler.peer] += 1
        if self._peers[handler.peer] > CONNECTIONS_PER_PEER:
            transport.close()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """For whatever reason."""
        super().connection_lost(handler, exc)
        assert isinstance(handler, Connection)
        self.forget(handler)
        self._open.discard(handler)
        if not self._open:
            self._none_open.set()

    async def end(self, grace_s: float) -> None:
        """End all: requests under way have so much time, then the closing of TLS; what is open after that is cut."""
        self.pre_shutdown()
        await self.shutdown(grace_s)
        try:
            async with asyncio.timeout(grace_s):
                await self._none_open.wait()
        except TimeoutError:
            for connection in list(self._open):
                connection.abort()
            await self._none_open.wait()


def refuse(refusal: Refusal, *, last: bool = False) -> web.Response:
    """The answer that says so; `last` ends the connection."""
    headers = {} if refusal.retry_ms is None else {"Retry-After": str(-(-refusal.retry_ms // 1000))}
    response = web.Response(
        status=refusal.code.status, body=encode_message(refusal.body()), content_type="application/cbor", headers=headers
    )  # fmt: skip
    if last or refusal.code in (Code.TOO_LARGE, Code.TIMEOUT):
        response.force_close()
    return response


def _take_one(counter: Counter[Any], key: object) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
