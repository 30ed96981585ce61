"""The kinds of fields that objects and messages have: each checks a value, turns it into CBOR and back, and says what it is.

A dataclass says its fields' kinds by `Annotated`; that one table drives encoder, decoder, limits and docs/mesh-protocol.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Final, Protocol, TypeVar, get_type_hints

from nexus_edge.errors import IdentityError
from nexus_edge.identity import check_node_id
from nexus_edge.types import Digest, JobId, MicroCredits, NodeId, UnixMs
from nexus_edge.wire.cbor import Value
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import AMOUNT, INTEGER

_UNSEEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters of both sets, which terminals obey, and those that turn the direction of what is around them."""


class Kind(Protocol):
    """One kind of field."""

    def read(self, value: Value) -> Any:
        """The Python value of a decoded one. Raises `BadObject`."""

    def write(self, value: Any) -> Value:
        """The CBOR value; raises `BadObject` for one that `read` would refuse."""

    def show(self) -> str:
        """As in the protocol's tables."""


@dataclass(frozen=True)
class Octets:
    """A byte string of a fixed length, or of at most that length."""

    length: int
    name: str = ""
    exact: bool = True

    def read(self, value: Value) -> bytes:
        if type(value) is not bytes:
            raise BadObject(f"expected a byte string, got {type(value).__name__}")
        if len(value) > self.length or (self.exact and len(value) != self.length):
            raise BadObject(f"expected {'' if self.exact else 'at most '}{self.length} bytes, got {len(value)}")
        return value

    write = read

    def show(self) -> str:
        return self.name or (f"{self.length} bytes" if self.exact else f"bytes <={self.length}")


@dataclass(frozen=True)
class NodeIdKind:
    """A public key that is not of small order."""

    def read(self, value: Value) -> NodeId:
        if type(value) is not bytes:
            raise BadObject(f"expected a node id, got {type(value).__name__}")
        try:
            return check_node_id(value)
        except IdentityError as wrong:
            raise BadObject(str(wrong)) from None

    write = read

    def show(self) -> str:
        return "id"


@dataclass(frozen=True)
class Integer:
    """An integer within bounds."""

    least: int
    most: int
    name: str

    def read(self, value: Value) -> int:
        if type(value) is not int:
            raise BadObject(f"expected an integer, got {type(value).__name__}")
        if not self.least <= value <= self.most:
            raise BadObject(f"expected an integer from {self.least} to {self.most}")
        return value

    write = read

    def show(self) -> str:
        return self.name


@dataclass(frozen=True)
class Text:
    """Text of at most so many bytes of UTF-8, without control characters."""

    limit: int

    def read(self, value: Value) -> str:
        if type(value) is not str:
            raise BadObject(f"expected text, got {type(value).__name__}")
        if len(value.encode()) > self.limit:
            raise BadObject(f"expected text of at most {self.limit} bytes")
        if _UNSEEN.search(value):
            raise BadObject("a text holds control characters")
        return value

    write = read

    def show(self) -> str:
        return f"s{self.limit}"


@dataclass(frozen=True)
class Flag:
    """Yes or no."""

    def read(self, value: Value) -> bool:
        if type(value) is not bool:
            raise BadObject(f"expected true or false, got {type(value).__name__}")
        return value

    write = read

    def show(self) -> str:
        return "bool"


@dataclass(frozen=True)
class Many:
    """A list of at most so many; a tuple in Python."""

    of: Kind
    limit: int

    def read(self, value: Value) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise BadObject(f"expected a list, got {type(value).__name__}")
        if len(value) > self.limit:
            raise BadObject(f"expected a list of at most {self.limit}, got {len(value)}")
        return tuple(self.of.read(item) for item in value)

    def write(self, value: Any) -> Value:
        if len(value) > self.limit:
            raise BadObject(f"expected a list of at most {self.limit}, got {len(value)}")
        return [self.of.write(item) for item in value]

    def show(self) -> str:
        return f"[{self.of.show()}] <={self.limit}"


@dataclass(frozen=True)
class Maybe:
    """A value or null; the key is always there."""

    of: Kind

    def read(self, value: Value) -> Any:
        return None if value is None else self.of.read(value)

    def write(self, value: Any) -> Value:
        return None if value is None else self.of.write(value)

    def show(self) -> str:
        return f"{self.of.show()} or null"


@dataclass(frozen=True)
class Record:
    """A map that is a dataclass of its own."""

    type: type

    def read(self, value: Value) -> Any:
        return read_fields(self.type, value)

    def write(self, value: Any) -> Value:
        return write_fields(value)

    def show(self) -> str:
        return "{" + ", ".join(f"{field.key} {field.kind.show()}" for field in table(self.type)) + "}"


@dataclass(frozen=True)
class Key:
    """The key on the wire, where Python cannot have it as a name."""

    name: str


@dataclass(frozen=True)
class Field:
    """One row of the table."""

    name: str
    key: str
    kind: Kind


Dataclass = TypeVar("Dataclass")

Id = Annotated[NodeId, NodeIdKind()]
H = Annotated[Digest, Octets(32, "h")]
Job = Annotated[JobId, Octets(16)]
U = Annotated[int, Integer(0, INTEGER, "u")]
U8 = Annotated[int, Integer(0, 255, "u8")]
Ppm = Annotated[int, Integer(0, 1_000_000, "ppm")]
Ms = Annotated[int, Integer(0, INTEGER, "ms")]
At = Annotated[UnixMs, Integer(0, INTEGER, "at")]
Amt = Annotated[MicroCredits, Integer(1, AMOUNT, "amt")]
Fee = Annotated[MicroCredits, Integer(0, AMOUNT, "amt or 0")]
Total = Annotated[MicroCredits, Integer(0, INTEGER, "u")]
Yes = Annotated[bool, Flag()]


def table(of: type) -> tuple[Field, ...]:
    """The fields of a dataclass, in the order of its definition."""
    return _table(of)


@cache
def _table(of: Any) -> tuple[Field, ...]:
    hints = get_type_hints(of, include_extras=True)
    rows = []
    for field in fields(of):
        kinds = [item for item in hints[field.name].__metadata__ if not isinstance(item, Key)]
        keys = [item.name for item in hints[field.name].__metadata__ if isinstance(item, Key)]
        rows.append(Field(field.name, keys[0] if keys else field.name, kinds[-1]))
    return tuple(rows)


def most_values(of: type) -> int:
    """How many CBOR values a dataclass can have as a map, keys included."""
    return _most_values(of)


@cache
def _most_values(of: Any) -> int:
    return 1 + sum(1 + _values(field.kind) for field in _table(of))


def _values(kind: Kind) -> int:
    match kind:
        case Many():
            return 1 + kind.limit * _values(kind.of)
        case Maybe():
            return _values(kind.of)
        case Record():
            return most_values(kind.type)
        case _:
            return 1


def write_fields(value: Any) -> dict[str, Value]:
    """A dataclass as a map. Raises `BadObject` naming the field that does not fit."""
    written: dict[str, Value] = {}
    for field in table(type(value)):
        try:
            written[field.key] = field.kind.write(getattr(value, field.name))
        except BadObject as wrong:
            raise BadObject(f"{field.key}: {wrong.why}") from None
    return written


def read_fields(of: type[Dataclass], value: Value) -> Dataclass:
    """The dataclass of a map that has exactly its keys. Raises `BadObject`."""
    if not isinstance(value, Mapping):
        raise BadObject(f"expected a map, got {type(value).__name__}")
    rows = table(of)
    if len(value) != len(rows) or any(field.key not in value for field in rows):
        missing = [field.key for field in rows if field.key not in value]
        unknown = sorted(set(value) - {field.key for field in rows})
        raise BadObject(f"keys missing: {missing[:8]}, unknown: {[key[:24] for key in unknown[:8]]}")
    found = {}
    for field in rows:
        try:
            found[field.name] = field.kind.read(value[field.key])
        except BadObject as wrong:
            raise BadObject(f"{field.key}: {wrong.why}") from None
    return of(**found)
