"""What an agent and its children say to each other: canonical CBOR maps, each after its length.

    length  u32, big endian, at most `LIMIT`
    body    canonical CBOR

To the child: `task {id, function, arguments, memory}` and `cancel {id}`. From it: `ready {}`, `progress {id, phase, ppm}`, `done {id,
result, peak}`, `failed {id, reason, error, what, why, hint, detail}`. The field `t` names the kind.
"""

import struct
from collections.abc import Mapping
from typing import Final

from nexus_edge.wire.cbor import Value, decode, encode
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import BLOB

LIMIT: Final = BLOB  # an input or output of 16 MiB in a statement, once more beside it, and a proof
HEAD: Final = struct.Struct(">I")


def frame(message: Mapping[str, Value]) -> bytes:
    """The bytes of a message. Raises `BadObject` if it is too large or not CBOR."""
    body = encode(message)
    check_length(len(body))
    return HEAD.pack(len(body)) + body


def check_length(length: int) -> None:
    """Raise `BadObject` before anything of a frame is read that is too long."""
    if not 0 < length <= LIMIT:
        raise BadObject(f"a frame of {length} bytes, at most {LIMIT} are allowed")


def message(body: bytes) -> Mapping[str, Value]:
    """The message in a frame. Raises `BadObject`."""
    value = decode(body, LIMIT)
    if not isinstance(value, Mapping) or not isinstance(value.get("t"), str):
        raise BadObject("a frame is a map with a text `t`")
    return value
