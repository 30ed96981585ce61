"""One value, one encoding: everything else is refused before it costs anything."""

import time
import unicodedata
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.types import Digest, MicroCredits
from nexus_edge.wire.cbor import decode, encode
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import CHUNKS, DEPTH, ENTRIES_PER_POST, EVENTS_PER_POLL, INPUT, MODEL, TENSORS
from nexus_edge.wire.messages import (
    EntriesPost,
    InputUpload,
    LeaseEvent,
    LeaseStatus,
    Manifest,
    PeersRequest,
    Upload,
    UploadAnswer,
    decode_message,
    encode_message,
)

texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=12).map(lambda text: unicodedata.normalize("NFC", text))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_values_survive(value: object) -> None:
    try:
        data = encode(value)  # type: ignore[arg-type]
    except BadObject as deep:
        assert "deeper" in deep.why  # noqa: PT017 - hypothesis may nest deeper than the protocol allows
        return
    assert decode(data, len(data)) == value


@given(st.binary(max_size=64))
def test_accepted_bytes_encode_to_themselves(data: bytes) -> None:
    try:
        value = decode(data, 64)
    except BadObject:
        return
    assert encode(value) == data


@given(values, st.data())
def test_changed_bytes_are_another_value_or_none(value: object, draw: st.DataObject) -> None:
    try:
        data = bytearray(encode(value))  # type: ignore[arg-type]
    except BadObject:
        return
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    try:
        other = decode(bytes(data), len(data))
    except BadObject:
        return
    assert encode(other) == bytes(data) != encode(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xa2\x61a\x01\x61a\x02", "Duplicate"),
        (b"\xa2\x61b\x01\x61a\x02", "canonical"),
        (b"\xa2\x62aa\x01\x61b\x02", "canonical"),
        (b"\x18\x01", "canonical"),
        (b"\x1b\x00\x00\x00\x00\x00\x00\x00\x01", "canonical"),
        (b"\x58\x01a", "canonical"),
        (b"\xc0\x74" + b"2013-03-21T20:04:00Z", "type"),
        (b"\xc2\x41\x01", "canonical"),
        (b"\xd8\x2a\x01", "type"),
        (b"\xf9\x3c\x00", "type float"),
        (b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00", "type float"),
        (b"\xf7", "type"),
        (b"\xe0", "type"),
        (b"\x9f\x01\xff", "CBOR"),
        (b"\x7f\x61a\xff", "CBOR"),
        (b"\x01\x02", "canonical"),
        (b"\xa1\x01\x02", "must be a text"),
        (b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "64 bits"),
        (b"\x62e\xcc", "CBOR"),
        (b"\x63e\xcc\x81", "normal form"),
        (b"\x61", "CBOR"),
        (b"", "CBOR"),
        (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "CBOR"),
        (b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", "CBOR"),
        (b"\xa1\x41a\x02", "not text"),
        (b"\x81" * 20 + b"\x01", "depth"),
        (b"\x81" * (DEPTH + 2) + b"\x01", "depth"),
    ],
)
def test_what_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadObject, match=why):
        decode(data, 64)


def test_size_comes_first() -> None:
    with pytest.raises(BadObject, match="at most 3"):
        decode(b"not even CBOR", 3)


def test_depth_is_bounded_on_both_sides() -> None:
    nested: list[object] = []
    for _ in range(DEPTH):
        nested = [nested]
    with pytest.raises(BadObject, match="deeper"):
        encode([nested])  # type: ignore[list-item]
    with pytest.raises(BadObject):
        decode(cbor2.dumps([nested]), 100)


@pytest.mark.parametrize("value", [1.5, 2**63, {1: 2}, {"e\u0301": 1}, object(), {1, 2}, "\ud800"])
def test_what_has_no_encoding(value: object) -> None:
    with pytest.raises(BadObject):
        encode(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "item", [b"\x00", b"\x80", b"\xa0", b"\x40", b"\xff", b"\x1c"], ids=["integers", "lists", "maps", "bytes", "breaks", "reserved"]
)
def test_a_large_body_of_small_values_costs_nothing(item: bytes) -> None:
    """Sixteen million lists would be a gigabyte, and a minute in which nobody else is served."""
    body = b"\x9a" + (INPUT // len(item)).to_bytes(4, "big") + INPUT * item
    started = time.monotonic()
    with pytest.raises(BadObject, match=r"values|indefinite or reserved"):
        decode_message(InputUpload, body, len(body))
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("message", [
    InputUpload(bytes(INPUT), bytes(32 * TENSORS), 1),
    Upload(Manifest(MODEL, CHUNKS * (Digest(bytes(32)),)), None),
    EntriesPost(ENTRIES_PER_POST * (bytes(512),)),
    PeersRequest(64 * (bytes(32),)),
    LeaseStatus("queued", "", 0, 1, 0, "", MicroCredits(0), EVENTS_PER_POLL * (LeaseEvent(1, 1, "step", "of it"),), None),
    UploadAnswer(256 * (1,), False),
])  # fmt: skip
def test_the_largest_messages_are_taken(message: Any) -> None:
    data = encode_message(message)
    assert decode_message(type(message), data, len(data)) == message
