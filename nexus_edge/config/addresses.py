"""Addresses as they are written in settings."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_ID: Final = re.compile(r"[a-z2-7]{56}")
"""52 characters of the key and 4 of check, without dashes. Whoever dials checks the check."""
HOST: Final = 253
"""The longest name that the domain name system has."""


@dataclass(frozen=True)
class ListenAddress:
    """An address of this machine and a port; port 0 leaves the choice to the system."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "ListenAddress":
        """From `host:port` or `[v6]:port`. Raises `ValueError`."""
        return cls(*_split(text, lowest=0))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class PeerAddress:
    """Where a peer is, and which one it must be if its id is given."""

    host: str
    port: int
    id: str | None = None
    """56 characters without dashes."""

    @classmethod
    def parse(cls, text: str) -> "PeerAddress":
        """From `host:port` or `id@host:port`. Raises `ValueError`."""
        before, separator, address = text.strip().rpartition("@")
        node = plain_id(before) if separator else None
        return cls(*_split(address, lowest=1), node)

    def __str__(self) -> str:
        address = str(ListenAddress(self.host, self.port))
        return address if self.id is None else f"{self.id}@{address}"


def plain_id(text: str) -> str:
    """An id as settings keep it: 56 characters without dashes. Raises `ValueError` for what is none at first sight."""
    node = text.strip().replace("-", "").lower()
    if not _ID.fullmatch(node):
        raise ValueError(f"{text!r} is no node id: it has 56 characters and dashes")
    return node


def _split(text: str, lowest: int) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not 0 < len(host) <= HOST or not host.isascii() or re.search(r"[\s\[\]@/]", host) or (":" in host) != bracketed:
        raise ValueError(f"{text!r} is not host:port, nor [address]:port of IPv6")
    if not (port.isascii() and port.isdecimal()) or len(port) > 5 or not lowest <= int(port) <= 65_535:
        raise ValueError(f"{text!r} has no port from {lowest} to 65535")
    return host, int(port)


def _listen(value: object) -> object:
    return ListenAddress.parse(value) if isinstance(value, str) else value


def _peer(value: object) -> object:
    return PeerAddress.parse(value) if isinstance(value, str) else value


_ANY = PlainSerializer(str, when_used="json")
Listen = Annotated[ListenAddress, BeforeValidator(_listen), _ANY, WithJsonSchema({"type": "string", "description": "host:port"})]
Peer = Annotated[PeerAddress, BeforeValidator(_peer), _ANY, WithJsonSchema({"type": "string", "description": "host:port or id@host:port"})]


def listed(value: object) -> object:
    """A list, also as text between commas: variables and flags have no other form."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
