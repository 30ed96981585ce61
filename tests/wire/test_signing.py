"""Signed objects: what one key signed under one type, and nothing else."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.identity import NodeKey
from nexus_edge.types import Digest, MicroCredits, NodeId, UnixMs
from nexus_edge.wire.cbor import decode, encode
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.fields import table, write_fields
from nexus_edge.wire.messages import MESSAGES, decode_message, encode_message
from nexus_edge.wire.objects import OBJECTS, Ack, Caps, DeviceClaim, Entry, ExecutorClaim, ModelClaim, SignedBody
from nexus_edge.wire.signing import read_signed, sign
from tests.support.wire import KEY, OTHER, kinds, message_values, object_values


def entry(**changes: Any) -> Entry:
    plain = Entry(
        iss=KEY.id, at=UnixMs(1), to=OTHER.id, chain=bytes(8), seq=0, prev=Digest(bytes(32)), what="job",
        amt=MicroCredits(5), total=MicroCredits(5), ref=Digest(bytes(32)),
    )  # fmt: skip
    return replace(plain, **changes)


@given(st.data())
def test_objects_survive(draw: st.DataObject) -> None:
    of = draw.draw(st.sampled_from(OBJECTS))
    what = draw.draw(object_values(of, KEY.id))
    try:
        signed = sign(KEY, what)
    except BadObject as large:
        assert "larger than" in large.why  # noqa: PT017 - all fields at their bounds may be too much together
        return
    again = read_signed(signed.to_bytes(), of)
    assert (again.object, again.body, again.id, again.issuer) == (what, signed.body, signed.id, KEY.id)
    assert again.to_bytes() == signed.to_bytes()


@given(st.data())
def test_messages_survive(draw: st.DataObject) -> None:
    message = draw.draw(message_values(draw.draw(st.sampled_from(MESSAGES))))
    data = encode_message(message)
    assert decode_message(type(message), data, len(data)) == message


def test_every_flipped_bit_is_refused() -> None:
    data = sign(KEY, entry()).to_bytes()
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises(BadObject):
                read_signed(bytes(changed), Entry)


def test_a_type_cannot_pass_for_another() -> None:
    ack = Ack(iss=KEY.id, at=UnixMs(1), to=OTHER.id, entry=Digest(bytes(32)))
    signed = sign(KEY, ack)
    with pytest.raises(BadObject, match="expected 'entry'"):
        read_signed(signed.to_bytes(), Entry)
    body = decode(signed.body, 1000)
    assert isinstance(body, dict)
    renamed = encode({**body, "t": "entry"})
    with pytest.raises(BadObject):
        read_signed(encode({"b": renamed, "s": signed.signature}), Entry, Ack)
    with pytest.raises(BadObject, match="expected 'entry'"):
        signed.of(Entry)


def test_nobody_signs_for_another() -> None:
    with pytest.raises(BadObject, match="issuer"):
        sign(OTHER, entry())
    forged = sign(OTHER, entry(iss=OTHER.id))
    stolen = encode({"v": 1, "t": "entry", **write_fields(entry())})
    with pytest.raises(BadObject, match="signature"):
        read_signed(encode({"b": stolen, "s": forged.signature}), Entry)


@pytest.mark.parametrize("change", [{"v": 2}, {"v": True}, {"t": "evidence"}, {"more": 1}, {"amt": -1}, {"amt": 2**41}, {"iss": bytes(32)}])
def test_a_body_with_other_fields(change: dict[str, Any]) -> None:
    body = encode({"v": 1, "t": "entry", **write_fields(entry()), **change})
    signature = KEY.sign(b"nexus-edge/1/entry\0" + body)
    with pytest.raises(BadObject):
        read_signed(encode({"b": body, "s": signature}), Entry)


@pytest.mark.parametrize("missing", [field.key for field in table(Entry)])
def test_a_missing_field_is_named(missing: str) -> None:
    body = {"v": 1, "t": "entry", **write_fields(entry())}
    del body[missing]
    with pytest.raises(BadObject, match=missing):
        read_signed(encode({"b": encode(body), "s": bytes(64)}), Entry)


def test_ids_tell_type_and_body_apart() -> None:
    first, second = sign(KEY, entry()), sign(KEY, entry(seq=1))
    assert first.id != second.id
    assert sign(KEY, entry()).id == first.id


def test_size_is_checked_before_anything() -> None:
    with pytest.raises(BadObject, match="at most 512"):
        read_signed(bytes(513), Entry)


def test_small_order_keys_are_refused() -> None:
    with pytest.raises(BadObject, match="to"):
        sign(KEY, entry(to=NodeId(bytes(32))))


def test_the_table_is_whole() -> None:
    assert len({one.kind for one in OBJECTS}) == len(OBJECTS) == 12
    for one in (*OBJECTS, *MESSAGES):
        assert len(table(one)) == len(fields(one))
        assert all(kind.show() for kind in kinds(one))
    assert all(issubclass(one, SignedBody) for one in OBJECTS)


def test_a_key_of_its_own() -> None:
    assert NodeKey.from_seed(bytes(32)).id == NodeKey.from_seed(bytes(32)).id != KEY.id


def test_the_largest_capabilities_are_taken() -> None:
    key = NodeKey.generate()
    devices = 16 * (DeviceClaim("cpu", 64 * "n", 1 << 40, 8),)
    executors = 8 * (ExecutorClaim("native", 8 * (24 * "s",)),)
    models = 256 * (ModelClaim(Digest(bytes(32)), 2, 1, 1, 1, 1),)
    caps = sign(key, Caps(key.id, UnixMs(1), 1, UnixMs(2), devices, executors, models, 1, 1))
    assert read_signed(caps.to_bytes(), Caps) == caps
