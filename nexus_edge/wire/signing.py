"""Signed objects: the bytes that were signed, kept as they are, with what they say.

`{"b": body, "s": signature}`; the signature is over `"nexus-edge/1/" + t + 0x00 + body`, so that no object can pass for another type or
for anything else that the node key signs.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from nexus_edge.errors import IdentityError
from nexus_edge.identity import NodeKey, verify_signature
from nexus_edge.types import Digest, NodeId
from nexus_edge.wire.cbor import Value, decode, encode
from nexus_edge.wire.digests import object_id
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.fields import most_values, read_fields, write_fields
from nexus_edge.wire.limits import TEXT
from nexus_edge.wire.objects import VERSION, SignedBody

ENVELOPE: Final = 5
"""Values in a signed form: the map, two keys, body and signature."""
HEAD: Final = 4
"""Values that a body has besides its fields: `v` and `t`."""

T = TypeVar("T", bound=SignedBody)
Other = TypeVar("Other", bound=SignedBody)


@dataclass(frozen=True)
class Signed(Generic[T]):
    """An object and its signature. Made by `sign`, `read_signed` and `read_stored`: it has been checked."""

    object: T
    body: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    id: Digest

    @property
    def issuer(self) -> NodeId:
        """Who signed it."""
        return self.object.iss

    def to_bytes(self) -> bytes:
        """The signed form."""
        return envelope(self.body, self.signature)

    def of(self, kind: type[Other]) -> "Signed[Other]":
        """The same object, known to be of one type. Raises `BadObject` if it is not."""
        if not isinstance(self.object, kind):
            raise BadObject(f"expected {kind.kind!r}, got {self.object.kind!r}")
        return self  # type: ignore[return-value]


def sign(key: NodeKey, what: T) -> Signed[T]:
    """Sign an object. Raises `BadObject` if it is not the key's, or a field is out of bounds."""
    if what.iss != key.id:
        raise BadObject("its issuer is not the signing key")
    kind = type(what).kind
    body = encode({"v": VERSION, "t": kind, **write_fields(what)})
    signed = Signed(what, body, key.sign(_message(kind, body)), object_id(kind, body))
    if len(signed.to_bytes()) > what.limit:
        raise BadObject(f"its signed form is larger than {what.limit} bytes")
    return signed


def envelope(body: bytes, signature: bytes) -> bytes:
    """The signed form of a body."""
    return encode({"b": body, "s": signature})


def read_signed(data: bytes, *types: type[T]) -> Signed[T]:
    """Check and decode one of the given types. Raises `BadObject`.

    In the order of what it costs: size, canonical form, fields, then the signature.
    """
    envelope = _as_map(decode(data, max(one.limit for one in types), ENVELOPE, TEXT), "b", "s")
    body, signature = envelope["b"], envelope["s"]
    if not isinstance(body, bytes) or not isinstance(signature, bytes) or len(signature) != 64:
        raise BadObject("it has no signature")
    content = decode(body, len(data), HEAD + max(most_values(one) for one in types), TEXT)
    if not isinstance(content, dict) or type(content.get("v")) is not int or content["v"] != VERSION:
        raise BadObject(f"it is not of version {VERSION}")
    kind = next((one for one in types if one.kind == content.get("t")), None)
    if kind is None:
        raise BadObject(f"expected {', '.join(repr(one.kind) for one in types)}")
    if len(data) > kind.limit:
        raise BadObject(f"it has {len(data)} bytes, at most {kind.limit} are allowed")
    what = read_fields(kind, {key: value for key, value in content.items() if key not in ("v", "t")})
    try:
        verify_signature(what.iss, signature, _message(kind.kind, body))
    except IdentityError as wrong:
        raise BadObject(str(wrong)) from None
    return Signed(what, body, signature, object_id(kind.kind, body))


def read_stored(kind: type[T], body: bytes, signature: bytes) -> Signed[T]:
    """An object that was checked when it was kept. Raises `BadObject`; the signature is not checked again."""
    content = decode(body, kind.limit)
    if not isinstance(content, dict) or (content.get("v"), content.get("t")) != (VERSION, kind.kind):
        raise BadObject(f"it is no {kind.kind!r} of version {VERSION}")
    what = read_fields(kind, {key: value for key, value in content.items() if key not in ("v", "t")})
    return Signed(what, body, signature, object_id(kind.kind, body))


def _message(kind: str, body: bytes) -> bytes:
    return f"nexus-edge/{VERSION}/{kind}".encode() + b"\0" + body


def _as_map(value: Value, *keys: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(keys):
        raise BadObject(f"expected a map of {', '.join(keys)}")
    return value
