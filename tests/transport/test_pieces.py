"""The parts that a server and a client are made of."""

import asyncio
import contextlib
import ssl
from types import SimpleNamespace

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.errors import IdentityError
from nexus_edge.identity import NodeKey
from nexus_edge.transport import bodies, tls
from nexus_edge.transport.bodies import SMALL_BODY, BodySpace, BodyTooLarge, receive
from nexus_edge.transport.queries import read_query, write_query
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import LONG_POLL_MS
from nexus_edge.wire.messages import AccountQuery, PartQuery, PollQuery
from nexus_edge.wire.refusals import Code, Refusal

KEY = NodeKey.from_seed(b"\7" * 32)
NUMBERS = st.integers(0, 2**53 - 1)


@given(
    st.one_of(
        st.builds(AccountQuery, st.binary(min_size=8, max_size=8), NUMBERS), st.builds(PollQuery, NUMBERS, st.integers(0, LONG_POLL_MS))
    )
)
def test_queries_survive(query: AccountQuery | PollQuery) -> None:
    assert read_query(type(query), write_query(query)) == query


@given(st.text(max_size=40))
def test_texts_are_a_query_in_one_form_or_none(text: str) -> None:
    with contextlib.suppress(BadObject):
        assert write_query(read_query(PartQuery, text)) in (text, "&".join(reversed(text.split("&"))))


@pytest.mark.parametrize(
    "text",
    [
        "start=1&length=0",
        "start=01&length=1",
        "start=1&length=\N{FULLWIDTH DIGIT ONE}",
        "start=1&length=1&",
        "length=1",
        "start=1&length= 1",
    ],
)
def test_what_is_no_query(text: str) -> None:
    with pytest.raises(BadObject):
        read_query(PartQuery, text)


def connected() -> StreamReader:
    protocol = BaseProtocol(asyncio.get_running_loop())
    protocol.transport = asyncio.Transport()
    return StreamReader(protocol, 2**16, loop=asyncio.get_running_loop())


@pytest.mark.asyncio
async def test_a_body_is_received_whole() -> None:
    loop, content = asyncio.get_running_loop(), connected()
    content.feed_data(b"ab")
    loop.call_later(0.01, content.feed_data, b"cd")
    loop.call_later(0.02, content.feed_eof)
    assert await receive(content, 4) == b"abcd"


@pytest.mark.asyncio
async def test_a_body_that_is_too_large_or_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "WINDOW_S", 0.05)
    content = connected()
    content.feed_data(b"abcd")
    with pytest.raises(BodyTooLarge):
        await receive(content, 3)
    content.feed_data(b"abcd")
    with pytest.raises(TimeoutError):
        await receive(content, 100)
    content._protocol.transport = None
    with pytest.raises(ConnectionError):
        await receive(content, 100)


@pytest.mark.asyncio
async def test_a_body_above_the_least_rate_takes_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "WINDOW_S", 0.1)
    monkeypatch.setattr(bodies, "WINDOW_BYTES", 10)
    loop, content = asyncio.get_running_loop(), connected()
    for number in range(10):
        loop.call_later(0.04 * number, content.feed_data, b"a" * 10)
    loop.call_later(0.4, content.feed_eof)
    assert len(await receive(content, 1000)) == 100


def test_room_for_bodies() -> None:
    size = 10 * SMALL_BODY
    space = BodySpace(3 * size)
    with space.held("a", size), space.held("a", SMALL_BODY):
        with pytest.raises(Refusal) as refused, space.held("a", SMALL_BODY + 1):
            pass
        assert refused.value.code is Code.BUSY
        with space.held("b", size), space.held("c", size), pytest.raises(Refusal), space.held("d", size):
            pass
    assert not space._used


def test_the_authority_is_the_same_everywhere_and_a_leaf_says_only_the_key() -> None:
    assert tls._pem(tls.authority()) == tls._pem(tls.authority())
    leaf = tls.leaf(KEY)
    assert tls._pem(leaf) == tls._pem(tls.leaf(KEY))
    assert leaf.public_key().public_bytes_raw() == KEY.id  # type: ignore[union-attr]
    assert leaf.not_valid_before_utc.year == 2020
    assert leaf.not_valid_after_utc.year == 9999
    assert leaf.serial_number != tls.leaf(NodeKey.generate()).serial_number
    leaf.verify_directly_issued_by(tls.authority())


def test_contexts() -> None:
    for context in (tls.server_context(KEY), tls.client_context(KEY)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
    assert tls.server_context(KEY).num_tickets == 0


def _shows(certificate: bytes | None) -> SimpleNamespace:
    return SimpleNamespace(getpeercert=lambda binary_form: certificate if binary_form else {})


def test_who_a_handshake_shows() -> None:
    der = ssl.PEM_cert_to_DER_cert(tls._pem(tls.leaf(KEY)))
    assert tls.peer_of(_shows(der)) == KEY.id
    elliptic = tls._certificate(generate_private_key(SECP256R1()).public_key(), tls._ISSUER, 7).sign(tls._WELL_KNOWN, None)  # type: ignore[arg-type]
    for certificate, why in (
        (None, "no certificate"),
        (b"x", "cannot be read"),
        (ssl.PEM_cert_to_DER_cert(tls._pem(elliptic)), "another kind"),
    ):
        with pytest.raises(IdentityError, match=why):
            tls.peer_of(_shows(certificate))
    with pytest.raises(IdentityError):
        tls.peer_of(None)


def test_a_certificate_for_a_key_of_small_order_is_nobodys() -> None:
    """Everyone can sign with the authority's key, so everyone can make one."""
    der = ssl.PEM_cert_to_DER_cert(tls._pem(tls.leaf(KEY))).replace(KEY.id, bytes([1]) + bytes(31))
    with pytest.raises(IdentityError, match="small order"):
        tls.peer_of(_shows(der))
