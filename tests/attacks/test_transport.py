"""Peers that are not who they say, or never finish what they begin: each ends in time, and a good peer is served meanwhile."""

import asyncio
import contextlib
import resource
import ssl
import time
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nexus_edge.errors import PeerError
from nexus_edge.identity import NodeKey
from nexus_edge.transport import PeerClient, PeerServer, tls
from nexus_edge.types import Digest, MicroCredits, UnixMs
from nexus_edge.wire.limits import CONNECTIONS_PER_PREFIX, HEADER_S, TLS_HANDSHAKE_S
from nexus_edge.wire.messages import EntriesPost, LeaseOffer
from nexus_edge.wire.objects import Entry, Lease
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import sign
from tests.support.peers import CLIENT, SERVER, serving

pytestmark = pytest.mark.asyncio

SLACK_S = 3.0
THIEF = NodeKey.from_seed(b"\5" * 32)


async def until_closed(reader: asyncio.StreamReader) -> float:
    """How long until the other side ends the connection."""
    started = time.monotonic()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await asyncio.wait_for(reader.read(), 30)
    return time.monotonic() - started


@contextlib.asynccontextmanager
async def dialled(server: PeerServer, context: ssl.SSLContext | None) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            await writer.wait_closed()


async def test_idle_connections_end() -> None:
    async with serving() as (server, _), dialled(server, None) as (reader, _):
        assert await until_closed(reader) < TLS_HANDSHAKE_S + SLACK_S
    async with serving() as (server, _), dialled(server, tls.client_context(CLIENT)) as (reader, _):
        assert await until_closed(reader) < HEADER_S + SLACK_S


async def test_headers_that_never_end() -> None:
    async with serving() as (server, _), dialled(server, tls.client_context(CLIENT)) as (reader, writer):
        writer.write(b"GET /1/node HTTP/1.1\r\nHost: x\r\n")
        assert await until_closed(reader) < HEADER_S + SLACK_S


async def test_dripped_headers() -> None:
    async with serving() as (server, _), dialled(server, tls.client_context(CLIENT)) as (reader, writer):

        async def drip() -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                for byte in b"GET /1/node HTTP/1.1\r\nX: " + b"a" * 300:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.2)

        dripping = asyncio.create_task(drip())
        assert await until_closed(reader) < HEADER_S + SLACK_S
        dripping.cancel()


async def test_a_slow_body() -> None:
    async with serving() as (server, _), dialled(server, tls.client_context(CLIENT)) as (reader, writer):
        writer.write(b"POST /1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 5.0 + SLACK_S)
        assert b" 408 " in answer


@pytest.mark.parametrize("header", [b"Content-Length: 104857600", b"Transfer-Encoding: chunked"])
async def test_a_body_of_a_hundred_megabytes(header: bytes) -> None:
    async with serving() as (server, _), dialled(server, tls.client_context(CLIENT)) as (reader, writer):
        writer.write(b"POST /1/ping HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
        piece = b"10000\r\n" + b"a" * 65536 + b"\r\n" if b"chunked" in header else b"a" * 65536
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.monotonic()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for _ in range(100 * 2**20 // 65536):
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), 5)
        assert time.monotonic() - started < 5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert b" 413 " in await reader.read()


async def test_long_lines_and_many_headers() -> None:
    for flood in (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", b"GET /1/node HTTP/1.1\r\n" + b"X: y\r\n" * 100 + b"\r\n"):
        async with serving() as (server, handlers), dialled(server, tls.client_context(CLIENT)) as (reader, writer):
            writer.write(flood)
            assert b" 400 " in await asyncio.wait_for(reader.read(), HEADER_S + SLACK_S)
            assert handlers.seen == []


async def test_two_hundred_connections_from_one_place_leave_room_for_others() -> None:
    async with serving() as (server, _), PeerClient(CLIENT) as client:
        good = client.at(SERVER.id, "127.0.0.1", server.port)
        await good.ping()
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(200)]
        try:
            ended = await asyncio.gather(*(asyncio.wait_for(until_closed(reader), 10) for reader, _ in opened))
            # Those beyond the bound end at once, before any handshake; the others when their handshake does not come.
            assert sum(one < 1 for one in ended) >= 200 - CONNECTIONS_PER_PREFIX
            assert max(ended) < TLS_HANDSHAKE_S + SLACK_S
            assert (await good.ping()).rtt_ms < 1000
        finally:
            for _, writer in opened:
                writer.close()
        assert server.connections <= 2


async def test_a_peer_that_floods_does_not_stop_another() -> None:
    async with serving() as (server, _), PeerClient(THIEF) as flood, PeerClient(CLIENT) as client:
        bad, good = (one.at(SERVER.id, "127.0.0.1", server.port) for one in (flood, client))
        results = await asyncio.gather(*(bad.ping() for _ in range(150)), return_exceptions=True)
        assert any(isinstance(one, Refusal) and one.code is Code.RATE for one in results)
        assert (await good.ping()).rtt_ms < 1000


async def test_no_certificate_and_a_rogue_authority() -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE
    rogue = tls.client_context(CLIENT)
    tls._load(rogue, CLIENT, tls.leaf(CLIENT, Ed25519PrivateKey.generate()))
    for context in (bare, rogue):
        async with serving() as (server, handlers):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                async with dialled(server, context) as (reader, writer):
                    writer.write(b"GET /1/node HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert await asyncio.wait_for(reader.read(), 10) == b""
            assert handlers.seen == []


async def test_old_tls_is_refused() -> None:
    old = tls.client_context(CLIENT)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving() as (server, _):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with dialled(server, old):
                pass


async def test_the_error_names_the_likely_cause_of_a_refused_certificate() -> None:
    async with serving() as (server, _), PeerClient(CLIENT) as client:
        tls._load(client._context, CLIENT, tls.leaf(CLIENT, Ed25519PrivateKey.generate()))
        with pytest.raises(PeerError, match="may not accept our key"):
            await client.at(SERVER.id, "127.0.0.1", server.port).ping()


async def test_a_stolen_certificate_is_no_key() -> None:
    """The thief shows the victim's certificate with its own private key: the handshake cannot be made."""
    context = tls.client_context(THIEF)
    key = THIEF.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    assert key
    with pytest.raises(ssl.SSLError, match=r"(?i)mismatch"):
        tls._load(context, THIEF, tls.leaf(CLIENT))


async def test_objects_of_others_are_refused() -> None:
    zero = Digest(bytes(32))
    entry = sign(
        CLIENT,
        Entry(
            iss=CLIENT.id, at=UnixMs(1), to=SERVER.id, chain=bytes(8), seq=0, prev=zero, what="job", amt=MicroCredits(1), total=MicroCredits(1),
            ref=zero,
        ),
    )  # fmt: skip
    lease = sign(
        CLIENT,
        Lease(
            iss=CLIENT.id, at=UnixMs(1), to=SERVER.id, job=bytes(16), att=0, quote=zero, inc=zero, outm=1, commit=zero, model=zero, sem="",  # type: ignore[arg-type]
            params="", mode=1, price=MicroCredits(1), start_fee=MicroCredits(0), deadline_ms=1, p_ppm=0, stake=MicroCredits(0), audit_ms=0,
        ),
    )  # fmt: skip
    async with serving() as (server, handlers), PeerClient(THIEF) as client:
        peer = client.at(SERVER.id, "127.0.0.1", server.port)
        for name, body in (("entries", EntriesPost((entry.to_bytes(),))), ("lease", LeaseOffer(lease.to_bytes(), lease.to_bytes()))):
            with pytest.raises(Refusal, match="signer") as refused:
                await peer.ask(name, body)
            assert refused.value.code is Code.NOT_YOURS
        assert handlers.seen == []


@pytest.mark.parametrize("body", [b"", b"\xff", b"\xa0", b"\xa1\x61x\x01", b"\x9f\xff", b"a" * 5000])
async def test_bodies_that_are_no_message(body: bytes) -> None:
    async with serving() as (server, _), dialled(server, tls.client_context(CLIENT)) as (reader, writer):
        writer.write(b"POST /1/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert b" 400 " in await asyncio.wait_for(reader.read(), 5)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /2/node", b" 426 "),
        (b"GET /1/nothing", b" 404 "),
        (b"DELETE /1/node", b" 404 "),
        (b"GET /1/leases/00", b" 404 "),
        (b"GET /1/leases/" + b"0" * 64 + b"?after=-1&wait=0", b" 400 "),
        (b"GET /1/leases/" + b"0" * 64 + b"?after=1&after=1", b" 400 "),
        (b"GET /1/leases/" + b"0" * 64 + b"?after=1&wait=99999999", b" 400 "),
        (b"GET /1/account?chain=zz&seq=1", b" 400 "),
    ],
)
async def test_requests_that_are_none(request_line: bytes, status: bytes) -> None:
    async with serving() as (server, _), dialled(server, tls.client_context(CLIENT)) as (reader, writer):
        writer.write(request_line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert status in await asyncio.wait_for(reader.read(), 5)
