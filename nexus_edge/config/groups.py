"""Fleets as they are written in settings: whose key, what it is called here, and what its members may owe together."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from nexus_edge.config.addresses import plain_id
from nexus_edge.config.names import checked_name
from nexus_edge.config.quantities import AMOUNT, CREDITS, parse, show
from nexus_edge.types import MicroCredits


@dataclass(frozen=True)
class ServedGroup:
    """One fleet."""

    key: str
    """56 characters without dashes. Whoever uses it checks the check."""
    name: str = ""
    line: MicroCredits | None = None
    """None: no bound."""

    @classmethod
    def parse(cls, text: str) -> "ServedGroup":
        """From `ID`, `NAME=ID`, either with `:AMOUNT` behind it. Raises `ValueError`."""
        name, _, rest = text.rpartition("=")
        key, separator, amount = rest.partition(":")
        line = parse(amount, CREDITS) if separator else None
        if line is not None and (not isinstance(line, int) or line > AMOUNT):
            raise ValueError(f"{amount!r} is more than a line can be")
        return cls(plain_id(key), checked_name(name), None if line is None else MicroCredits(line))

    def __str__(self) -> str:
        named = f"{self.name}={self.key}" if self.name else self.key
        return named if self.line is None else f"{named}:{show(self.line, CREDITS)}"


def _group(value: object) -> object:
    return ServedGroup.parse(value) if isinstance(value, str) else value


def _distinct(groups: tuple[ServedGroup, ...]) -> tuple[ServedGroup, ...]:
    """One line for each key."""
    keys = [group.key for group in groups]
    for group in groups:
        if keys.count(group.key) > 1:
            raise ValueError(f"the key {group.key} is there twice")
    return groups


OneGroup = Annotated[
    ServedGroup,
    BeforeValidator(_group),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string", "description": "ID, NAME=ID, ID:AMOUNT or NAME=ID:AMOUNT"}),
]
Groups = Annotated[tuple[OneGroup, ...], AfterValidator(_distinct)]
