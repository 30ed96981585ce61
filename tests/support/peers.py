"""Real servers and clients on loopback."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

from nexus_edge.identity import NodeKey
from nexus_edge.transport import Answering, Caller, PeerClient, PeerServer
from nexus_edge.types import NOTHING, Digest, UnixMs
from nexus_edge.wire.limits import OUTPUT
from nexus_edge.wire.messages import (
    InputUpload,
    LeaseStatus,
    ObjectPart,
    PeersAnswer,
    ResultAnswer,
    Upload,
    UploadAnswer,
)
from nexus_edge.wire.objects import NodeRecord
from nexus_edge.wire.signing import Signed, sign

SERVER = NodeKey.from_seed(b"\3" * 32)
CLIENT = NodeKey.from_seed(b"\4" * 32)
LEASE = Digest(bytes(32))


class Handlers:
    """Answers what needs no ledger, and notes who asked."""

    def __init__(self, key: NodeKey) -> None:
        self.key = key
        self.seen: list[Any] = []
        self.waiting = 0

    async def node(self) -> Signed[NodeRecord]:
        self.seen.append("node")
        record = NodeRecord(
            iss=self.key.id, at=UnixMs(1), seq=1, exp=UnixMs(2), mesh="test", proto=(1,), addrs=(), udp=0, name="", sw="", caps=Digest(bytes(32))
        )  # fmt: skip
        return sign(self.key, record)

    async def peers(self, caller: Caller, _: object) -> PeersAnswer:
        self.seen.append(caller)
        return PeersAnswer(())

    async def lease(self, caller: Caller, lease: Any, quote: Any, upload: Any) -> Any:
        self.seen.append((caller, lease, quote, upload))
        raise AssertionError("no lease should get here")

    async def entries(self, caller: Caller, entries: Any) -> Any:
        self.seen.append((caller, entries))
        raise AssertionError("no entry should get here")

    async def put_input(self, caller: Caller, lease: Digest, upload: InputUpload) -> None:
        self.seen.append((caller, lease, len(upload.data)))

    async def poll(self, _: Caller, lease: Digest, after: int, wait_ms: int) -> LeaseStatus:
        self.seen.append((lease, after))
        self.waiting += 1
        try:
            await asyncio.sleep(wait_ms / 1000)
        finally:
            self.waiting -= 1
        return LeaseStatus("queued", "", 0, None, 0, "", NOTHING, (), None)

    async def result(self, caller: Caller, _: Digest) -> ResultAnswer:
        self.seen.append(caller)
        return ResultAnswer(b"", bytes(OUTPUT), None, None, None)

    async def put_object(self, caller: Caller, digest: Digest, upload: Upload) -> UploadAnswer:  # noqa: ARG002
        self.waiting += 1
        try:
            await asyncio.sleep(20)
        finally:
            self.waiting -= 1
        return UploadAnswer((), True)

    async def get_object(self, _: Caller, digest: Digest, start: int, length: int) -> ObjectPart:
        self.seen.append((digest, start, length))
        return ObjectPart(bytes(length), 2**40)

    async def account(self, caller: Caller, chain: bytes, seq: int) -> Any:
        self.seen.append((caller, chain, seq))
        raise KeyError("a fault")


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
    assert server.connections == 0


Raw = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def dialled(server: PeerServer, context: ssl.SSLContext | None, address: str = "127.0.0.1") -> AsyncIterator[Raw]:
    """A raw connection from an address of its own, with little room for what it does not read."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    plain.setblocking(False)
    plain.bind((address, 0))
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=plain, ssl=context, server_hostname=None if context is None else "peer")
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
