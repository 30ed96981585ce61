"""Ids that are safe to verify under, and texts that show a typing error."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.errors import IdentityError
from nexus_edge.identity import NodeKey, check_node_id, format_node_id, parse_node_id, short_id, verify_signature
from nexus_edge.identity.ids import _SMALL_ORDER

keys = st.binary(min_size=32, max_size=32).map(NodeKey.from_seed)


@given(keys)
def test_texts_survive(key: NodeKey) -> None:
    text = format_node_id(key.id)
    assert parse_node_id(text) == parse_node_id(text.upper().replace("-", "")) == key.id
    assert [len(group) for group in text.split("-")] == [7] * 8
    assert text.startswith(short_id(key.id))


@given(keys, st.data())
def test_one_wrong_character_shows(key: NodeKey, draw: st.DataObject) -> None:
    text = format_node_id(key.id).replace("-", "")
    at = draw.draw(st.integers(0, len(text) - 1))
    other = draw.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567").filter(lambda letter: letter != text[at]))
    # 20 bits of check: one in a million of such errors would pass, and none of those that are drawn here.
    with pytest.raises(IdentityError):
        parse_node_id(text[:at] + other + text[at + 1 :])


@pytest.mark.parametrize("text", ["", "k3f9", "é" * 56, "a" * 55, "a" * 57, "1" * 56, "=" * 56])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(IdentityError):
        parse_node_id(text)


@pytest.mark.parametrize("y", sorted(_SMALL_ORDER))
@pytest.mark.parametrize("sign", [0, 0x80])
def test_keys_of_small_order_are_refused(y: bytes, sign: int) -> None:
    with pytest.raises(IdentityError, match="small order"):
        check_node_id(y[:31] + bytes([y[31] | sign]))


def test_why_small_order_matters() -> None:
    """R = identity, S = 0 is a valid signature of everything under the identity as key, if nobody checks."""
    identity = bytes([1]) + bytes(31)
    forged = identity + bytes(32)
    verify_signature(identity, forged, b"I owe you nothing")  # type: ignore[arg-type]
    with pytest.raises(IdentityError):
        check_node_id(identity)


@given(keys, st.binary(max_size=40), st.integers(0, 511))
def test_signatures(key: NodeKey, message: bytes, bit: int) -> None:
    signature = bytearray(key.sign(message))
    verify_signature(key.id, bytes(signature), message)
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IdentityError):
        verify_signature(key.id, bytes(signature), message)


def test_secrets_differ_by_domain_parts_and_key() -> None:
    key, other = NodeKey.from_seed(bytes(32)), NodeKey.generate()
    secrets = [key.secret("a"), key.secret("b"), key.secret("a", b"x"), key.secret("a", b"x", b""), other.secret("a")]
    assert len(set(secrets)) == 5
    assert key.secret("a") == secrets[0]


def test_a_key_shows_and_gives_nothing() -> None:
    key = NodeKey.generate()
    assert key.seed().hex() not in repr(key)
    assert repr(key) == f"NodeKey({short_id(key.id)})"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        copy.deepcopy(key)
    with pytest.raises(IdentityError):
        NodeKey.from_seed(b"short")
