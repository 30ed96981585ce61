"""Node keys and node ids. A node's id is its Ed25519 public key: nothing else has to be carried along, and the same key is its TLS key.

As text an id is base32 in lower case, 52 characters and 4 check characters, in groups of 7: docs/mesh-protocol.md.
"""

import base64
import binascii
from typing import Final, NoReturn

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

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


class NodeKey:
    """The secret key of a node. Its `repr` shows the id only, and it cannot be pickled or copied."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self.private = private
        """For TLS."""
        self.id = NodeId(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> "NodeKey":
        """A fresh key, from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "NodeKey":
        """The key of a 32-byte seed. Raises `IdentityError`."""
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(seed))
        except ValueError:
            raise IdentityError("this is no node key", f"it has {len(seed)} bytes, a seed has 32") from None

    def seed(self) -> bytes:
        """The 32 bytes that are the key: for its file only."""
        return self.private.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """64 bytes. What is signed must begin with a domain of its own."""
        return self.private.sign(message)

    def secret(self, domain: str, *parts: bytes) -> bytes:
        """32 bytes that only this node can derive, the same each time from the same parts."""
        hasher = blake3(derive_key_context=f"nexus-edge 1 node secret: {domain}")
        for part in (self.seed(), *parts):
            hasher.update(len(part).to_bytes(8, "little"))
            hasher.update(part)
        return hasher.digest()

    def __repr__(self) -> str:
        return f"NodeKey({short_id(self.id)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a node key is not copied")


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().lower().rstrip("=")


def _check(data: bytes) -> str:
    return _base32(blake3(data, derive_key_context="nexus-edge 1 node id check").digest())[:_CHECK]
