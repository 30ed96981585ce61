"""Peers that are not who they say, or never finish what they begin: each ends in time, and a good peer is served meanwhile."""

import asyncio
import contextlib
import logging
import resource
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nexus_edge.errors import PeerError
from nexus_edge.identity import NodeKey
from nexus_edge.transport import PeerClient, PeerServer, tls
from nexus_edge.transport.bodies import WINDOW_S
from nexus_edge.types import Digest, MicroCredits, UnixMs
from nexus_edge.wire.limits import CONNECTIONS, CONNECTIONS_PER_PEER, CONNECTIONS_PER_PREFIX, HEADER_S, TLS_HANDSHAKE_S
from nexus_edge.wire.messages import EntriesPost, LeaseOffer, Manifest, Upload, encode_message
from nexus_edge.wire.objects import Entry, Lease
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import sign
from tests.support.peers import CLIENT, LEASE, SERVER, Raw, dialled, serving

pytestmark = pytest.mark.asyncio

SLACK_S = 2.5
THIEF = NodeKey.from_seed(b"\5" * 32)
RESULT = f"GET /1/leases/{LEASE.hex()}/result HTTP/1.1\r\nHost: x\r\n\r\n".encode()
UPLOAD = f"PUT /1/leases/{LEASE.hex()}/input HTTP/1.1\r\nHost: x\r\n".encode()


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A stranger writes nothing into the log: neither ours nor aiohttp's."""
    with structlog.testing.capture_logs() as ours:
        yield
    assert [entry for entry in ours if entry["log_level"] != "debug"] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def sends(data: bytes) -> Attack:
    """Says so much and no more, and reads nothing."""

    async def attack(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return attack


def drips(data: bytes, drop: bytes) -> Attack:
    """Then goes on, a little every fifth of a second."""

    async def attack(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.2)

    return attack


async def sips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads a large answer, slower than anything is sent."""
    writer.write(RESULT)
    while await reader.read(1000):
        await asyncio.sleep(0.1)


# Over TLS or not, what it does, and within what the server must have ended it.
ATTACKS: dict[str, tuple[bool, Attack, float]] = {
    "idle TCP": (False, sends(b""), TLS_HANDSHAKE_S),
    "half a handshake": (False, sends(b"\x16\x03\x01\x02\x00\x01\x00"), TLS_HANDSHAKE_S),
    "dripped handshake": (False, drips(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"a"), TLS_HANDSHAKE_S),
    "no TLS": (False, sends(b"GET /1/node HTTP/1.1\r\nHost: x\r\n\r\n"), 0.5),
    "idle TLS": (True, sends(b""), HEADER_S),
    "half a header": (True, sends(b"GET /1/node HTTP/1.1\r\nHost: x\r\n"), HEADER_S),
    "dripped header": (True, drips(b"GET /1/node HTTP/1.1\r\nX: ", b"a"), HEADER_S),
    "dripped second header": (True, drips(b"GET /1/node HTTP/1.1\r\nHost: x\r\n\r\nGET /1/node HTTP/1.1\r\nX: ", b"a"), HEADER_S),
    "dripped empty lines": (True, drips(b"", b"\r\n"), HEADER_S),
    "silent body": (True, sends(b"POST /1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"), 5.0 + 1.0),
    "dripped body": (True, drips(b"POST /1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n", b"a"), 5.0 + 1.0),
    "dripped chunks": (True, drips(b"POST /1/ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"), 5.0 + 1.0),
    "body that nobody wants": (True, drips(b"GET /1/node HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n", b"a"), 1.0),
    "silent upload": (True, sends(UPLOAD + b"Content-Length: 9000000\r\n\r\n"), WINDOW_S + 1.0),
    "dripped upload": (True, drips(UPLOAD + b"Content-Length: 9000000\r\n\r\n", b"a" * 1000), WINDOW_S + 1.0),
    "answer that is not read": (True, sends(RESULT), WINDOW_S),
    "answer that is read slowly": (True, sips, WINDOW_S),
    "upgrade": (True, drips(b"GET /1/node HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"a"), HEADER_S),
}


async def until_ended(server: PeerServer, address: str, limit: float) -> float:
    """How long until the server has no connection from there."""
    started = time.monotonic()
    while server._connections._prefixes[address] and time.monotonic() - started < limit:
        await asyncio.sleep(0.02)
    return time.monotonic() - started


@contextlib.asynccontextmanager
async def served_meanwhile(server: PeerServer) -> AsyncIterator[None]:
    """A good peer, which comes with a new connection each time, and must be served at once."""
    slowest = 0.0

    async def come_again() -> None:
        nonlocal slowest
        while True:
            async with PeerClient(CLIENT) as client:
                started = time.monotonic()
                await client.at(SERVER.id, "127.0.0.1", server.port).node()
                slowest = max(slowest, time.monotonic() - started)
            await asyncio.sleep(0.2)

    good = asyncio.create_task(come_again())
    yield
    await asyncio.sleep(0)
    good.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await good
    assert 0 < slowest < 1.5


@pytest.mark.usefixtures("quiet")
async def test_every_attack_ends_in_time_while_a_good_peer_is_served() -> None:
    async def attacked(number: int, encrypted: bool, attack: Attack, deadline: float) -> float:
        address = f"127.0.1.{number}"
        async with dialled(server, tls.client_context(NodeKey.generate()) if encrypted else None, address) as (reader, writer):

            async def attacking() -> None:
                with contextlib.suppress(OSError):
                    await attack(reader, writer)

            task = asyncio.create_task(attacking())
            ended = await until_ended(server, address, deadline + 2 * SLACK_S)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return ended - deadline

    async with serving() as (server, _), served_meanwhile(server):
        late = await asyncio.gather(*(attacked(number, *attack) for number, attack in enumerate(ATTACKS.values(), 1)))
    assert {name: by for name, by in zip(ATTACKS, late, strict=True) if by > SLACK_S} == {}


@pytest.mark.parametrize("header", [b"Content-Length: 104857600", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"POST /1/ping", b" 413 "),
        (b"GET /1/node", b" 200 "),
        (b"POST /1/nothing", b" 404 "),
        (UPLOAD.partition(b" HTTP")[0], b" 413 "),
    ],
)
async def test_a_body_of_a_hundred_megabytes(header: bytes, request_line: bytes, status: bytes) -> None:
    async with serving() as (server, handlers), dialled(server, tls.client_context(CLIENT)) as (reader, writer):
        writer.write(request_line + b" HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
        piece = b"10000\r\n" + b"a" * 65536 + b"\r\n" if b"chunked" in header else b"a" * 65536
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.monotonic()
        with contextlib.suppress(OSError):
            for _ in range(100 * 2**20 // 65536):
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), 5)
        assert time.monotonic() - started < 5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 * 1024
        with contextlib.suppress(OSError):
            assert status in await reader.read(100)
        assert [one for one in handlers.seen if one != "node"] == []


@pytest.mark.usefixtures("quiet")
async def test_long_lines_and_many_headers() -> None:
    floods = (
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
        b"GET /1/node HTTP/1.1\r\n" + b"X: y\r\n" * 100 + b"\r\n",
        b"GET /1/node HTTP/1.1\r\nX: " + b"a" * 5000 + b"\r\n\r\n",
        b"POST /1/ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzzz\r\n",
        b"POST /1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x80\xff\x00\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    for flood in floods:
        async with serving() as (server, handlers), dialled(server, tls.client_context(CLIENT)) as (reader, writer):
            writer.write(flood)
            answer = await asyncio.wait_for(reader.read(), HEADER_S + SLACK_S)
            assert b" 400 " in answer
            assert b"bad-object" in answer
            assert handlers.seen == []


async def test_two_hundred_connections_from_one_place_leave_room_for_others() -> None:
    async with serving() as (server, _):
        async with contextlib.AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(dialled(server, None, "127.0.1.1")) for _ in range(200)]
            await asyncio.sleep(0.2)
            # Those beyond the bound end at once, before any handshake; the others when their handshake does not come.
            assert server._connections._prefixes["127.0.1.1"] == CONNECTIONS_PER_PREFIX
            refused = await asyncio.gather(*(asyncio.wait_for(reader.read(), 0.5) for reader, _ in opened), return_exceptions=True)
            assert refused.count(b"") + sum(isinstance(one, ConnectionError) for one in refused) == 200 - CONNECTIONS_PER_PREFIX
            async with served_meanwhile(server):
                assert await until_ended(server, "127.0.1.1", 10) < TLS_HANDSHAKE_S + SLACK_S
        assert server.connections == 0


async def test_connections_from_everywhere_have_a_bound_too() -> None:
    """A prefix more than the bound has room for: the last one gets nothing, until the others have missed their handshakes."""
    places = [f"127.0.2.{number}" for number in range(1, CONNECTIONS // CONNECTIONS_PER_PREFIX + 2)]
    async with serving() as (server, _), contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(dialled(server, None, place)) for place in places for _ in range(CONNECTIONS_PER_PREFIX)]
        async with asyncio.timeout(TLS_HANDSHAKE_S):
            while server.connections < CONNECTIONS:
                await asyncio.sleep(0.01)
        assert server.connections == CONNECTIONS
        assert server._connections._prefixes[places[-1]] == 0
        last = [reader for reader, _ in opened[-CONNECTIONS_PER_PREFIX:]]
        ended = await asyncio.gather(*(asyncio.wait_for(reader.read(), 1) for reader in last), return_exceptions=True)
        assert all(one == b"" or isinstance(one, ConnectionError) for one in ended), ended
        async with asyncio.timeout(TLS_HANDSHAKE_S + SLACK_S):
            while server.connections:
                await asyncio.sleep(0.02)
        async with dialled(server, tls.client_context(CLIENT), places[-1]) as (reader, writer):
            writer.write(b"GET /1/node HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in await asyncio.wait_for(reader.readline(), HEADER_S)


async def test_connections_that_come_and_go_cost_few_handshakes() -> None:
    async def knock(context: ssl.SSLContext) -> bool:
        try:
            async with dialled(server, context, "127.0.1.1"):
                return True
        except OSError:
            return False

    async with serving() as (server, _), served_meanwhile(server):
        context = tls.client_context(THIEF)
        started = time.monotonic()
        made = [await knock(context) for _ in range(400)]
        # A burst, and then so many a second.
        assert sum(made) <= 128 + 32 * (time.monotonic() - started) + 1
        assert not all(made)


async def test_one_peer_has_few_connections() -> None:
    async with serving() as (server, _), contextlib.AsyncExitStack() as stack:
        opened: list[Raw] = [
            await stack.enter_async_context(dialled(server, tls.client_context(THIEF))) for _ in range(CONNECTIONS_PER_PEER + 4)
        ]
        ended = await asyncio.gather(*(asyncio.wait_for(reader.read(), 1) for reader, _ in opened), return_exceptions=True)
        assert [one == b"" for one in ended] == [False] * CONNECTIONS_PER_PEER + [True] * 4


async def test_a_peer_that_floods_is_slowed_down_and_does_not_stop_another() -> None:
    """Requests without end, in one connection, none of whose answers are read or heeded."""
    async with serving() as (server, handlers), dialled(server, tls.client_context(THIEF), "127.0.1.1") as (_, writer):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with served_meanwhile(server):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3):
                    while not writer.transport.is_closing():
                        writer.write(b"GET /1/node HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
                        await writer.drain()
                        await asyncio.sleep(0)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 * 1024
        assert 60 <= handlers.seen.count("node") < 60 + 3 * 20 + 3 * 5 + 10  # burst, rate, the good one's, and some for slow machines


async def test_many_ids_of_one_place_count_like_few() -> None:
    refused = 0
    async with serving() as (server, _):
        for _ in range(12):
            async with PeerClient(NodeKey.generate()) as client:
                peer = client.at(SERVER.id, "127.0.0.1", server.port)
                answers = await asyncio.gather(*(peer.ping() for _ in range(50)), return_exceptions=True)
                refused += sum(isinstance(one, Refusal) and one.code is Code.RATE for one in answers)
    assert refused > 50


@pytest.mark.usefixtures("quiet")
async def test_peers_that_leave_in_the_middle() -> None:
    async with serving() as (server, handlers):
        for said in (
            RESULT,
            UPLOAD + b"Content-Length: 9000\r\n\r\n" + bytes(99),
            b"POST /1/ping HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\na",
        ):
            async with dialled(server, tls.client_context(CLIENT)) as (_, writer):
                writer.write(said)
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.1)
        assert len(handlers.seen) == 1  # the result, of which little was read
        assert server.connections == 0
        assert not server._space._used


async def test_large_bodies_have_bounded_room() -> None:
    """Nobody fills the memory, and nobody's neighbours go without."""
    size = b"Content-Length: 16000000\r\n\r\n"
    async with serving() as (server, _), contextlib.AsyncExitStack() as stack:
        for number in range(8):
            _, writer = await stack.enter_async_context(dialled(server, tls.client_context(NodeKey.generate()), "127.0.1.1"))
            writer.write(UPLOAD + size + bytes(number))
        reader, writer = await stack.enter_async_context(dialled(server, tls.client_context(NodeKey.generate()), "127.0.1.1"))
        await asyncio.sleep(0.3)
        writer.write(UPLOAD + size)
        assert b" 503 " in await asyncio.wait_for(reader.read(100), 2)
        async with PeerClient(CLIENT) as client:
            answer = await client.at(SERVER.id, "127.0.0.1", server.port).result(LEASE)
            assert len(answer.output) == 16 * 2**20
    assert not server._space._used


async def test_polls_of_a_lost_connection_hold_nothing() -> None:
    poll = f"GET /1/leases/{LEASE.hex()}?after=0&wait=20000 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with serving() as (server, handlers):
        for _ in range(3):
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(4):
                    _, writer = await stack.enter_async_context(dialled(server, tls.client_context(CLIENT)))
                    writer.write(poll)
                await asyncio.sleep(0.2)
                assert handlers.waiting == 4
                reader, writer = await stack.enter_async_context(dialled(server, tls.client_context(CLIENT)))
                writer.write(poll)
                assert b" 429 " in await asyncio.wait_for(reader.read(100), 2)
            await asyncio.sleep(0.2)
            assert handlers.waiting == 0


async def test_nothing_is_prepared_for_one_who_has_gone_away() -> None:
    body = encode_message(Upload(Manifest(1, (LEASE,)), None))
    put = f"PUT /1/objects/{LEASE.hex()} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with serving() as (server, handlers):
        async with dialled(server, tls.client_context(CLIENT)) as (_, writer):
            writer.write(put + body)
            await asyncio.sleep(0.2)
            assert handlers.waiting == 1
        await asyncio.sleep(0.2)
        assert handlers.waiting == 0


async def test_no_certificate_and_a_rogue_authority() -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE
    rogue = tls.client_context(CLIENT)
    tls._load(rogue, CLIENT, tls.leaf(CLIENT, Ed25519PrivateKey.generate()))
    for context in (bare, rogue):
        async with serving() as (server, handlers):
            with contextlib.suppress(OSError):
                async with dialled(server, context) as (reader, writer):
                    writer.write(b"GET /1/node HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert await asyncio.wait_for(reader.read(), 10) == b""
            assert handlers.seen == []


async def test_old_tls_is_refused() -> None:
    old = tls.client_context(CLIENT)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving() as (server, handlers):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with dialled(server, old):
                pass
        assert handlers.seen == []


async def test_the_error_names_the_likely_cause_of_a_refused_certificate() -> None:
    async with serving() as (server, _), PeerClient(CLIENT) as client:
        tls._load(client._context, CLIENT, tls.leaf(CLIENT, Ed25519PrivateKey.generate()))
        with pytest.raises(PeerError, match="may not accept our key"):
            await client.at(SERVER.id, "127.0.0.1", server.port).ping()


async def test_a_stolen_certificate_is_no_key() -> None:
    """The thief has the victim's certificate, which everyone can make, and not its key."""
    with pytest.raises(ssl.SSLError, match=r"(?i)mismatch"):
        tls._load(tls.client_context(THIEF), THIEF, tls.leaf(CLIENT))


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
        for name, body in (("entries", EntriesPost((entry.to_bytes(),))), ("lease", LeaseOffer(lease.to_bytes(), lease.to_bytes(), None))):
            with pytest.raises(Refusal, match="signer") as refused:
                await peer.ask(name, body)
            assert refused.value.code is Code.NOT_YOURS
        assert handlers.seen == []


@pytest.mark.parametrize("body", [b"", b"\xff", b"\xa0", b"\xa1\x61x\x01", b"\x9f\xff", b"a" * 5000])
async def test_bodies_that_are_no_message(body: bytes) -> None:
    async with serving() as (server, _), dialled(server, tls.client_context(CLIENT)) as (reader, writer):
        writer.write(b"POST /1/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert b" 400 " in await asyncio.wait_for(reader.read(), 5)


POLL = b"GET /1/leases/" + b"0" * 64


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /2/node", b" 426 "),
        (b"GET /1/nothing", b" 404 "),
        (b"DELETE /1/node", b" 404 "),
        (b"GET /1/leases/00", b" 404 "),
        (b"GET /1/leases/" + b"G" * 64, b" 404 "),
        (b"GET //1/node", b" 404 "),
        (b"GET *", b" 400 "),
        (POLL + b"?after=-1&wait=0", b" 400 "),
        (POLL + b"?after=1&after=1", b" 400 "),
        (POLL + b"?after=1&wait=99999999", b" 400 "),
        (POLL + b"?after=1&wait=1&more=1", b" 400 "),
        (POLL + b"?" + b"&".join(b"a%d=1" % number for number in range(50)), b" 400 "),
        (POLL + b"?after=+1&wait=0", b" 400 "),
        (POLL + b"?after=1_0&wait=0", b" 400 "),
        (POLL + b"?after=" + b"9" * 800 + b"&wait=0", b" 400 "),
        (POLL + b"?after=1;wait=0", b" 400 "),
        (POLL + b"?&&&", b" 400 "),
        (POLL, b" 400 "),
        (b"GET /1/account?chain=zz&seq=1", b" 400 "),
        (b"GET /1/account?chain=0011223344556677&seq=1", b" 500 "),
    ],
)
async def test_requests_that_are_none(request_line: bytes, status: bytes) -> None:
    async with serving() as (server, _), dialled(server, tls.client_context(CLIENT)) as (reader, writer):
        writer.write(request_line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert status in answer
        assert b"application/cbor" in answer
        assert b"a fault\n" not in answer
