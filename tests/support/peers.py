"""Real servers and clients on loopback."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from nexus_edge.identity import NodeKey
from nexus_edge.transport import Answering, Caller, PeerClient, PeerServer
from nexus_edge.transport.routes import Route
from nexus_edge.types import Digest, UnixMs
from nexus_edge.wire.messages import PeersAnswer
from nexus_edge.wire.objects import NodeRecord
from nexus_edge.wire.signing import Signed, sign

SERVER = NodeKey.from_seed(b"\3" * 32)
CLIENT = NodeKey.from_seed(b"\4" * 32)


class Handlers:
    """Answers what needs no ledger, and notes who asked."""

    def __init__(self, key: NodeKey) -> None:
        self.key = key
        self.seen: list[Any] = []

    async def node(self) -> Signed[NodeRecord]:
        self.seen.append("node")
        record = NodeRecord(
            iss=self.key.id, at=UnixMs(1), seq=1, exp=UnixMs(2), mesh="test", proto=(1,), addrs=(), udp=0, name="", sw="", caps=Digest(bytes(32))
        )  # fmt: skip
        return sign(self.key, record)

    async def peers(self, caller: Caller, _: object) -> PeersAnswer:
        self.seen.append(caller)
        return PeersAnswer(())

    async def lease(self, caller: Caller, lease: Any, quote: Any) -> Any:
        self.seen.append((caller, lease, quote))
        raise AssertionError("no lease should get here")

    async def entries(self, caller: Caller, entries: Any) -> Any:
        self.seen.append((caller, entries))
        raise AssertionError("no entry should get here")


class Recorder:
    """Answers nothing, and counts."""

    def __init__(self) -> None:
        self.requests = 0

    async def __call__(self, route: Route, caller: Caller, captures: Mapping[str, str], body: Any, query: Any) -> bytes | None:  # noqa: ARG002
        self.requests += 1
        return None


@contextlib.asynccontextmanager
async def serving(key: NodeKey = SERVER) -> AsyncIterator[tuple[PeerServer, Handlers]]:
    """A server with real handlers, which dials back for real."""
    handlers = Handlers(key)
    async with PeerClient(key) as dialler:
        server = PeerServer(key, Answering(handlers, dialler))  # type: ignore[arg-type]
        await server.start("127.0.0.1", 0)
        try:
            yield server, handlers
        finally:
            await server.close()
