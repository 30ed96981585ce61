"""What a dialler meets that is no peer, or one that answers badly: a typed error with the likely cause, in bounded time and memory."""

import asyncio
import contextlib
import datetime
import ipaddress
import resource
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nexus_edge.errors import PeerError
from nexus_edge.identity import NodeKey
from nexus_edge.transport import PeerClient, bodies, channel, tls
from nexus_edge.transport.answering import DIALBACKS_PER_PREFIX
from nexus_edge.transport.errors import BadAnswer, Unreachable, WrongPeer
from nexus_edge.types import UnixMs
from nexus_edge.wire.cbor import encode
from nexus_edge.wire.messages import PingAnswer, RefusalBody, encode_message
from nexus_edge.wire.refusals import Code, Refusal
from tests.support.peers import CLIENT, LEASE, SERVER, serving

pytestmark = pytest.mark.asyncio

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def answering(answer: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that is not ours; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await answer(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def says(data: bytes, stay_s: float = 0.2) -> Answer:
    """Reads a request's header, and answers with this."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(stay_s)

    return answer


def http(status: str, body: bytes, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


async def nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


PONG = encode_message(PingAnswer(UnixMs(1), "127.0.0.1:1", known=True))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (http("200 OK", b""), "CBOR"),
        (http("200 OK", b"\xff" * 50), "CBOR"),
        (http("200 OK", PONG + b"\0"), "canonical"),
        (http("200 OK", encode({"at": 1, "addr": 2, "known": True})), "addr: expected text"),
        (http("200 OK", b"a" * 20_000), "more than"),
        (http("302 Found", b"", "Location: https://127.0.0.1:1/"), "status 302"),
        (http("500 Oops", b"<html>"), "status 500"),
        (http("429 Too Many", encode({"code": "unheard-of"})), "status 429"),
        (http("404 Not Found", b"a" * 20_000), "more than"),
    ],
)
async def test_answers_that_are_none(data: bytes, why: str) -> None:
    async with answering(says(data), tls.server_context(SERVER)) as port, PeerClient(CLIENT) as client:
        with pytest.raises(BadAnswer, match=why):
            await client.at(SERVER.id, "127.0.0.1", port).ping()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
    ],
)
async def test_what_is_no_http(data: bytes) -> None:
    async with answering(says(data), tls.server_context(SERVER)) as port, PeerClient(CLIENT) as client:
        with pytest.raises(Unreachable, match="ended the connection"):
            await client.at(SERVER.id, "127.0.0.1", port).ping()


async def test_a_code_that_is_known_is_a_refusal() -> None:
    body = encode_message(RefusalBody("no-credit", "no room", None, None, 7))
    async with answering(says(http("402 Pay", body)), tls.server_context(SERVER)) as port, PeerClient(CLIENT) as client:
        with pytest.raises(Refusal, match="no room") as refused:
            await client.at(SERVER.id, "127.0.0.1", port).ping()
        assert (refused.value.code, refused.value.room) == (Code.NO_CREDIT, 7)


async def test_an_answer_signed_by_another_is_none() -> None:
    async with serving(NodeKey.from_seed(b"\6" * 32)) as (other, _), PeerClient(CLIENT) as client:
        record = await client.at(NodeKey.from_seed(b"\6" * 32).id, "127.0.0.1", other.port).node()
    async with answering(says(http("200 OK", record.to_bytes())), tls.server_context(SERVER)) as port, PeerClient(CLIENT) as client:
        with pytest.raises(BadAnswer, match="another node signed it"):
            await client.at(SERVER.id, "127.0.0.1", port).node()


async def test_silence_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "CONNECT_S", 0.3)
    monkeypatch.setattr(channel, "SLACK_S", -4.5)  # of the 5 s that a peer has for a ping
    for context in (None, tls.server_context(SERVER)):
        async with answering(nothing, context) as port, PeerClient(CLIENT) as client:
            started = time.monotonic()
            with pytest.raises(Unreachable, match="does not answer") as silent:
                await client.at(SERVER.id, "127.0.0.1", port).ping()
            assert time.monotonic() - started < 2
            assert "firewall" in silent.value.hint


async def test_a_dripped_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "WINDOW_S", 0.5)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
        while True:
            writer.write(b"a" * 100)
            await writer.drain()
            await asyncio.sleep(0.05)

    async with answering(drip, tls.server_context(SERVER)) as port, PeerClient(CLIENT) as client:
        started = time.monotonic()
        with pytest.raises(Unreachable, match="does not answer"):
            await client.at(SERVER.id, "127.0.0.1", port).result(LEASE)
        assert time.monotonic() - started < 2


async def test_an_endless_answer_is_cut() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.transport.is_closing():
            writer.write(b"10000\r\n" + b"a" * 65536 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with answering(flood, tls.server_context(SERVER)) as port, PeerClient(CLIENT) as client:
        with pytest.raises(BadAnswer, match="more than"):
            await client.at(SERVER.id, "127.0.0.1", port).result(LEASE)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def _other_service(folder: Path) -> ssl.SSLContext:
    """A web server with a certificate of its own."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "printer")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, None)
    )
    path = folder / "printer.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_another_service_has_the_port(tmp_path: Path) -> None:
    old = tls.server_context(SERVER)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    asked: list[bytes] = []

    async def note(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1000))

    for context in (_other_service(tmp_path), old):
        async with answering(note, context) as port, PeerClient(CLIENT) as client:
            with pytest.raises(PeerError, match=r"no nexus-edge node|ended the connection") as wrong:
                await client.at(SERVER.id, "127.0.0.1", port).ping()
            assert "another service" in wrong.value.hint
            with pytest.raises(PeerError, match=r"no nexus-edge node|ended the connection"):
                await client.identify("127.0.0.1", port)
    assert b"".join(asked) == b""

    async def web(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http("400 Bad Request", b""))
        await writer.drain()

    async with answering(web) as port, PeerClient(CLIENT) as client:
        with pytest.raises(WrongPeer, match="no nexus-edge node"):
            await client.at(SERVER.id, "127.0.0.1", port).ping()


async def test_one_that_hangs_up_at_once() -> None:
    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    async with answering(hang_up) as port, PeerClient(CLIENT) as client:
        with pytest.raises(Unreachable, match="ended the connection"):
            await client.at(SERVER.id, "127.0.0.1", port).ping()


@pytest.mark.parametrize(
    "host", ["", "a b", "x/../y", "user@127.0.0.1", "127.0.0.1#", "a" * 300, "no-such-host.invalid", "fe80::1%no-such-link", "[::1]", "\0"]
)
async def test_addresses_that_lead_nowhere(host: str) -> None:
    async with PeerClient(CLIENT) as client:
        with pytest.raises(PeerError):
            await client.identify(host, 7411)
        with pytest.raises(PeerError):
            await client.at(SERVER.id, host, 7411).node()


async def test_many_ids_do_not_make_a_scanner_of_us() -> None:
    async with serving() as (server, _):
        for number in range(2 * DIALBACKS_PER_PREFIX + 1):
            async with PeerClient(NodeKey.from_seed(bytes([7, number]) * 16)) as client:
                asking = client.at(SERVER.id, "127.0.0.1", server.port).dialback(server.port)
                if number < 2 * DIALBACKS_PER_PREFIX:
                    assert not (await asking).ok
                    continue
                with pytest.raises(Refusal, match="dialbacks") as refused:
                    await asking
                assert refused.value.code is Code.RATE
