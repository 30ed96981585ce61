"""Canonical CBOR (RFC 8949, 4.2.1) with text keys: every value has one encoding, and only that one is accepted.

Text keys only: `cbor2` sorts keys by length first, which is the order of RFC 8949 only if all keys of a map have one major type.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import cbor2

from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import BLOB, DEPTH

Value: TypeAlias = bool | int | str | bytes | Sequence["Value"] | Mapping[str, "Value"] | None
"""What canonical CBOR carries here: no floats, tags, undefined, simple values or indefinite lengths."""

ITEMS: Final = 65_536
"""Values in one of our own records: ten times as many as the largest has. What comes from peers has the bound of its type."""
UNCOUNTED: Final = 1024
"""Bytes that hold too few values to matter, and most objects fit into."""

_LEAST, _MOST = -(2**63), 2**63 - 1
_BYTES, _TEXT = 2, 3  # major types whose content follows


def encode(value: Value) -> bytes:
    """The canonical bytes. Raises `BadObject` for a value that has none: a bug of the caller's."""
    _check(value, DEPTH)
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, limit: int, items: int = ITEMS, text: int = BLOB) -> Value:
    """The value of canonical bytes of at most `limit` bytes and `items` values, keys included, with texts of at most `text` bytes.

    Raises `BadObject`; all three are checked before anything is built: a body of empty lists would take a minute and a hundred times its size.
    """
    if len(data) > limit:
        raise BadObject(f"it has {len(data)} bytes, at most {limit} are allowed")
    if len(data) > UNCOUNTED:
        _count(data, items, text)
    try:
        value: Value = cbor2.loads(data, allow_indefinite=False, allow_duplicate_keys=False, strict_hashable_types=True, max_depth=DEPTH)
    except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError, MemoryError) as broken:
        raise BadObject(f"it is not CBOR as this protocol has it: {broken}") from None
    _check(value, DEPTH)
    # Sorted keys, shortest lengths, no trailing bytes: whatever is not canonical encodes differently.
    if cbor2.dumps(value, canonical=True) != data:
        raise BadObject("its encoding is not canonical")
    return value


def _count(data: bytes, most: int, text: int) -> None:
    """Raise `BadObject` for more values or longer texts than may be, without looking at how they belong together."""
    at, left = 0, most
    while at < len(data):
        if not left:
            raise BadObject(f"it has more than {most} values")
        left -= 1
        major, info = divmod(data[at], 32)
        at += 1
        value = info
        if info > 27:
            raise BadObject("it has a length that is indefinite or reserved")
        if info > 23:
            size = 1 << (info - 24)
            value = int.from_bytes(data[at : at + size], "big")
            at += size
        if major == _TEXT and value > text:
            raise BadObject(f"it has a text of more than {text} bytes")
        if major in (_BYTES, _TEXT):
            at += value


def _check(value: object, depth: int) -> None:
    if depth < 0:
        raise BadObject(f"it is nested deeper than {DEPTH}")
    kind = type(value)
    if value is None or kind is bool or kind is bytes:
        return
    if kind is int:
        if not _LEAST <= value <= _MOST:  # type: ignore[operator]
            raise BadObject("an integer is outside 64 bits")
    elif isinstance(value, str):
        _check_text(value)
    elif kind is dict or isinstance(value, Mapping):
        for key, item in value.items():  # type: ignore[attr-defined]
            if not isinstance(key, str):
                raise BadObject("a key of a map is not text")
            _check_text(key)
            _check(item, depth - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth - 1)
    else:
        raise BadObject(f"it holds a value of type {kind.__name__}")


def _check_text(text: str) -> None:
    if text.isascii():
        return
    if not unicodedata.is_normalized("NFC", text):
        raise BadObject("a text is not in Unicode normal form C")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadObject("a text holds a lone surrogate") from None
