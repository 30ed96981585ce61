"""Node ids. A node's id is its Ed25519 public key: nothing else has to be carried along, and the same key is its TLS key.

As text an id is base32 in lower case, 52 characters and 4 check characters, in groups of 7: docs/mesh-protocol.md.
"""

import base64
import binascii
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from nexus_edge.errors import IdentityError
from nexus_edge.types import NodeId

_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(y)
    for y in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
"""The y-coordinates of points of small order, canonical or not: one forged signature is valid for any message under such a key, so that its
owner could deny whatever it signed."""

_TEXT, _CHECK, _GROUP = 52, 4, 7


def check_node_id(data: bytes) -> NodeId:
    """The id in 32 bytes from outside. Raises `IdentityError` for other lengths and for keys of small order."""
    if len(data) != 32:
        raise IdentityError("this is no node id", f"it has {len(data)} bytes, a key has 32")
    if data[:31] + bytes([data[31] & 0x7F]) in _SMALL_ORDER:
        raise IdentityError("this node id is not accepted", "the key is of small order: its owner could deny its signatures")
    return NodeId(data)


def verify_signature(node: NodeId, signature: bytes, message: bytes) -> None:
    """Raise `IdentityError` unless the node signed the message. The one verifier of signatures: two could disagree."""
    try:
        Ed25519PublicKey.from_public_bytes(node).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise IdentityError("the signature is wrong", f"it is not by {short_id(node)} over these bytes") from None


def format_node_id(node: NodeId) -> str:
    """The whole id with check characters, in groups of 7."""
    text = _base32(node) + _check(node)
    return "-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))


def parse_node_id(text: str) -> NodeId:
    """The id in a text; case and dashes do not matter. Raises `IdentityError` if the check characters are wrong."""
    plain = text.strip().replace("-", "").lower()
    if len(plain) != _TEXT + _CHECK or not plain.isascii():
        raise IdentityError("this is no node id", f"{len(plain)} characters without dashes, expected {_TEXT + _CHECK}", "copy all of it")
    try:
        data = base64.b32decode(plain[:_TEXT].upper() + "====")
    except binascii.Error:
        raise IdentityError("this is no node id", "it holds characters other than a-z and 2-7", "copy all of it") from None
    if _base32(data) + _check(data) != plain:
        raise IdentityError("this node id has a typing error", "its check characters do not fit", "copy all of it")
    return check_node_id(data)


def short_id(node: NodeId) -> str:
    """The first seven characters: for people, where a whole id has been seen before."""
    return _base32(node)[:_GROUP]


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().lower().rstrip("=")


def _check(data: bytes) -> str:
    return _base32(blake3(data, derive_key_context="nexus-edge 1 node id check").digest())[:_CHECK]
