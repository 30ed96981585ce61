"""Events of state machines, and their form in the ledger."""

import unicodedata
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from nexus_edge.errors import LedgerError
from nexus_edge.types import UnixMs
from nexus_edge.wire.cbor import Value


@dataclass(frozen=True)
class Event:
    """Something that happened. `kind` is its name in the ledger."""

    kind: ClassVar[str]

    at: UnixMs

    def __post_init__(self) -> None:
        """Texts as the ledger takes them: a reason may quote a path or a library, and must not keep its event from being written."""
        for field in fields(self):
            object.__setattr__(self, field.name, _written(getattr(self, field.name)))


E = TypeVar("E")


def event_body(event: object) -> dict[str, Value]:
    """An event's fields for the ledger."""
    return {field.name: _plain(getattr(event, field.name)) for field in fields(event)}  # type: ignore[arg-type]


def event_from(kinds: dict[str, type[E]], kind: str, body: dict[str, Any]) -> E:
    """The event that the ledger kept. Raises `LedgerError`."""
    try:
        return kinds[kind](**{key: tuple(value) if isinstance(value, list) else value for key, value in body.items()})
    except (KeyError, TypeError) as unknown:
        raise LedgerError("the ledger holds an event that this version does not know", f"{kind!r}: {unknown}") from unknown


def _plain(value: Any) -> Value:
    return list(value) if isinstance(value, tuple) else value


def _written(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_written(item) for item in value)
    if isinstance(value, str) and not value.isascii():
        return unicodedata.normalize("NFC", value.encode("utf-8", "replace").decode())
    return value
