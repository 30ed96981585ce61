"""What multicast DNS says of nexus-edge instances: a bounded table of records, and what they amount to.

An instance is a pointer, a service record (port and server), a text record, and the server's addresses. They come in any order and from
anyone: the table keeps little, for a short time, and names who it holds so that the library's cache can be emptied of the rest.
"""

import base64
import binascii
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from zeroconf import DNSAddress, DNSPointer, DNSRecord, DNSService, DNSText  # type: ignore[attr-defined]  # records are its public data

from nexus_edge.discovery.peers import Endpoint
from nexus_edge.errors import IdentityError
from nexus_edge.identity import check_node_id, short_id
from nexus_edge.types import NodeId

SERVICE: Final = "_nexus-edge._tcp.local."
VERSION: Final = "1"
INSTANCES: Final = 256
"""Held at once, the latest. Whoever is known goes on to the directory at once, so a flood delays nobody who announces itself anew."""
ADDRESSES: Final = 8
"""Of one server."""
TEXT_LIMIT: Final = 400
"""Bytes of a text record: ours has at most 99."""
NAME_LIMIT: Final = 63 + 1 + len(SERVICE)
"""An instance is one label."""
SERVER_LIMIT: Final = 255
FLUSH_MS: Final = 1000.0
"""Records of one announcement come within a second."""

_ID: Final = 52


@dataclass(frozen=True)
class Sighting:
    """An instance whose records are complete. Nothing of it is proved."""

    node: NodeId | None
    mesh: str
    endpoints: tuple[Endpoint, ...]


def text_of(node: NodeId, mesh: str) -> dict[str, str]:
    """The text record of a node."""
    return {"v": VERSION, "id": base64.b32encode(node).decode().lower().rstrip("="), "mesh": mesh}


@dataclass
class _Instance:
    """The records of one instance, by kind; `text` and `service` are the latest."""

    pointer: Any
    service: Any = None
    text: Any = None
    addresses: dict[bytes, Any] = field(default_factory=dict)

    def records(self) -> list[Any]:
        found = [self.pointer, self.service, self.text, *self.addresses.values()]
        return [record for record in found if record is not None]


class Announcements:
    """Instances by name, the oldest first. `own` is ours and never held."""

    def __init__(self, own: str) -> None:
        self._own = own.lower()
        self._instances: dict[str, _Instance] = {}
        self._servers: dict[str, set[str]] = {}

    def take(self, records: Iterable[Any], now_ms: float) -> tuple[set[str], list[Any]]:
        """Read records that came together. Returns the names of instances they are about, and records that nothing needs any more."""
        ordered = sorted(records, key=_order)
        surplus: list[Any] = []
        touched: set[str] = set()
        for record in ordered:
            surplus += self._take(record, now_ms)
            touched |= self._about(record)
        for name in touched:
            surplus += self._flush(self._instances[name], ordered, now_ms)
        while len(self._instances) > INSTANCES:
            oldest = next(iter(self._instances))
            surplus += self.drop(oldest)
            touched.discard(oldest)
        return touched, surplus

    def drop(self, name: str) -> list[Any]:
        """Forget an instance; returns its records."""
        instance = self._instances.pop(name, None)
        if instance is None:
            return []
        self._unserve(name, instance)
        return instance.records()

    def sighting(self, name: str) -> Sighting | None:
        """What an instance's records amount to; None while one is missing, or if they make no sense."""
        instance = self._instances.get(name)
        if instance is None or instance.service is None or instance.text is None or not instance.addresses:
            return None
        values = _read_text(instance.text.text)
        if values is None or values.get("v") != VERSION or not 0 < instance.service.port < 65536:
            return None
        node = _read_id(values.get("id", ""))
        if node is not None and not name.startswith(short_id(node)):
            return None
        endpoints = tuple(Endpoint(_host(record), instance.service.port) for record in instance.addresses.values())
        return Sighting(node, values.get("mesh", ""), endpoints)

    def missing(self) -> list[tuple[str, str]]:
        """What to ask for, as (name, kind): kinds `SRV`, `TXT` and `ADDRESS`."""
        wanted: list[tuple[str, str]] = []
        for name, instance in self._instances.items():
            if instance.service is None:
                wanted.append((name, "SRV"))
            elif not instance.addresses:
                wanted.append((instance.service.server, "ADDRESS"))
            if instance.text is None:
                wanted.append((name, "TXT"))
        return wanted

    def is_over(self, name: str, now_ms: float) -> bool:
        """Whether the instance said goodbye, or was not heard of for as long as it asked to be remembered."""
        return name not in self._instances or self._instances[name].pointer.is_expired(now_ms)

    def known_answers(self, now_ms: float) -> list[Any]:
        """Pointers with more than half of their time left: who made them need not answer (RFC 6762, section 7.1)."""
        return [instance.pointer for instance in self._instances.values() if not instance.pointer.is_stale(now_ms)]

    def __contains__(self, name: str) -> bool:
        return name in self._instances

    def __len__(self) -> int:
        return len(self._instances)

    def _take(self, record: Any, now_ms: float) -> list[Any]:
        """Returns what is not held afterwards: the record itself, or the one it replaces.

        Only a pointer's end means anything here. The library lets the other records end after two minutes unless someone asks for them;
        as hints they stay as long as the pointer.
        """
        if not isinstance(record, DNSPointer) and record.is_expired(now_ms):
            return []
        match record:
            case DNSPointer():
                return [] if self._take_pointer(record, now_ms) else [record]
            case DNSService() if len(record.server) <= SERVER_LIMIT:
                return self._take_service(record.name.lower(), record)
            case DNSText() if len(record.text) <= TEXT_LIMIT:
                return self._take_text(record.name.lower(), record)
            case DNSAddress():
                return self._take_address(record)
            case _:
                return [record]

    def _take_pointer(self, record: Any, now_ms: float) -> bool:
        name = record.alias.lower()
        if record.name.lower() != SERVICE or not name.endswith("." + SERVICE) or len(name) > NAME_LIMIT or name == self._own:
            return False
        instance = self._instances.pop(name, None)
        if instance is None and record.is_expired(now_ms):
            return False
        self._instances[name] = instance or _Instance(record)  # the latest again
        self._instances[name].pointer = record
        return True

    def _take_service(self, name: str, record: Any) -> list[Any]:
        instance = self._instances.get(name)
        if instance is None:
            return [record]
        out = _replaced(instance.service, record)
        if instance.service is not None and instance.service.server.lower() != record.server.lower():
            self._unserve(name, instance)
            out += instance.addresses.values()
            instance.addresses = {}
        instance.service = record
        self._servers.setdefault(record.server.lower(), set()).add(name)
        return out

    def _take_text(self, name: str, record: Any) -> list[Any]:
        instance = self._instances.get(name)
        if instance is None:
            return [record]
        out = _replaced(instance.text, record)
        instance.text = record
        return out

    def _take_address(self, record: Any) -> list[Any]:
        names = self._servers.get(record.name.lower(), set())
        out = [] if names else [record]
        for name in names:
            addresses = self._instances[name].addresses
            out += _replaced(addresses.pop(record.address, None), record)
            addresses[record.address] = record
            if len(addresses) > ADDRESSES:
                out.append(addresses.pop(next(iter(addresses))))
        return out

    def _flush(self, instance: _Instance, batch: list[Any], now_ms: float) -> list[Any]:
        """Addresses that a new announcement of all of them leaves out: RFC 6762, section 10.2."""
        if instance.service is None:
            return []
        server = instance.service.server.lower()
        renewed = {record.type for record in batch if isinstance(record, DNSAddress) and record.unique and record.name.lower() == server}
        old = [record for record in instance.addresses.values() if record.type in renewed and now_ms - record.created > FLUSH_MS]
        for record in old:
            del instance.addresses[record.address]
        return old

    def _unserve(self, name: str, instance: _Instance) -> None:
        if instance.service is None:
            return
        server = instance.service.server.lower()
        names = self._servers.get(server, set())
        names.discard(name)
        if not names:
            self._servers.pop(server, None)

    def _about(self, record: DNSRecord) -> set[str]:
        match record:
            case DNSPointer():
                return {record.alias.lower()} & self._instances.keys()
            case DNSAddress():
                return set(self._servers.get(record.name.lower(), ()))
            case _:
                return {record.name.lower()} & self._instances.keys()


def _order(record: Any) -> int:
    """What names others before what is named: pointer, service, the rest."""
    return 0 if isinstance(record, DNSPointer) else 1 if isinstance(record, DNSService) else 2


def _replaced(before: Any, now: Any) -> list[Any]:
    return [] if before is None or before == now else [before]


def _read_text(data: bytes) -> dict[str, str] | None:
    """Keys and values of a text record, the first of each key (RFC 6763, section 6.4)."""
    values: dict[str, str] = {}
    at = 0
    while at < len(data):
        length = data[at]
        item, at = data[at + 1 : at + 1 + length], at + 1 + length
        if len(item) < length:
            return None
        key, _, value = item.partition(b"=")
        try:
            values.setdefault(key.decode("ascii").lower(), value.decode())
        except UnicodeDecodeError:
            return None
    return values


def _read_id(text: str) -> NodeId | None:
    if len(text) != _ID or not text.isascii():
        return None
    try:
        data = base64.b32decode(text.upper() + "====")
        node = check_node_id(data)
    except (binascii.Error, IdentityError):
        return None
    return node if text_of(node, "")["id"] == text.lower() else None


def _host(record: Any) -> str:
    address = ipaddress.ip_address(record.address)
    return f"{address}%{record.scope_id}" if address.is_link_local and record.scope_id else str(address)
