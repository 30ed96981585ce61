"""What is known of one peer: frozen rows, and what each observation makes of them. All times for people are Unix milliseconds."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from nexus_edge.discovery.reachability import UNTRIED, Reachability, State
from nexus_edge.types import NodeId, UnixMs
from nexus_edge.wire.addresses import join_address, split_address
from nexus_edge.wire.objects import NodeRecord
from nexus_edge.wire.signing import Signed

ADDRESSES_PER_PEER: Final = 8
"""As many as a node record may name: two families on a few interfaces."""
RTT_WEIGHT: Final = 0.25
"""Of the newest round trip in the shown one: a single late packet moves it by a quarter."""


class Source(StrEnum):
    """How an address came to be known, the most trusted first."""

    STATIC = "static"
    MDNS = "mdns"
    CALLER = "caller"
    """It dialled us, asked to be dialled back, and was there."""
    EXCHANGE = "exchange"
    DHT = "dht"


class Endpoint(NamedTuple):
    """Where to dial. `host` may be a name, if it comes from the settings, and a link-local address has its zone."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_address(self.host, self.port)


@dataclass(frozen=True)
class PeerAddress:
    """One address of a peer."""

    endpoint: Endpoint
    sources: frozenset[Source]
    first_seen: UnixMs
    last_seen: UnixMs
    """When a source last named it, or the peer last answered there."""
    rtt_ms: float | None = None
    """None until the peer has answered there: only the handshake shows that the address is the peer's."""

    @property
    def is_static(self) -> bool:
        """Whether it stands in the settings."""
        return Source.STATIC in self.sources


@dataclass(frozen=True)
class Peer:
    """One row of the directory."""

    id: NodeId
    first_seen: UnixMs
    found_by: Source
    """What named it first."""
    addresses: tuple[PeerAddress, ...] = ()
    """The one to dial first comes first."""
    reachability: Reachability = UNTRIED
    record: Signed[NodeRecord] | None = None
    """Its newest record, signed by its key."""
    elsewhere: str | None = None
    """The mesh that it said last it is in, if that is not ours: nothing else of such a record is kept."""
    last_answer: UnixMs | None = None
    rtt_ms: float | None = None
    skew_ms: int | None = None
    """How far its clock is ahead of ours."""
    mutual: bool | None = None
    """Whether it can reach us; None while it has not tried."""
    one_way: str = ""
    """Why it could not reach us, as it says; empty if it could, or has not tried."""
    problem: str = ""
    """Why the last probe failed."""

    @property
    def state(self) -> State:
        """Whether it can be reached."""
        return self.reachability.state

    @property
    def is_static(self) -> bool:
        """Whether an address of it stands in the settings: such a peer is never forgotten."""
        return any(address.is_static for address in self.addresses)

    @property
    def sources(self) -> frozenset[Source]:
        """What names it now."""
        return frozenset(source for address in self.addresses for source in address.sources)

    @property
    def reach(self) -> str:
        """Who can dial whom: `both`, `out` (we can), `in` (it can) or `none`."""
        out = self.state is State.UP
        if self.mutual:
            return "both" if out else "in"
        return "out" if out else "none"

    def found_at(self, endpoint: Endpoint, source: Source, now: UnixMs) -> "Peer":
        """A source names an address of it. Of too many, one goes that never answered, the one that was named longest ago."""
        known = next((address for address in self.addresses if address.endpoint == endpoint), None)
        address = (
            PeerAddress(endpoint, frozenset({source}), now, now)
            if known is None
            else replace(known, sources=known.sources | {source}, last_seen=now)
        )
        others = tuple(other for other in self.addresses if other is not known)
        if len(others) >= ADDRESSES_PER_PEER:
            least = min(others, key=lambda other: (other.is_static, other.rtt_ms is not None, other.last_seen))
            others = tuple(other for other in others if other is not least)
        return replace(self, addresses=_in_order((*others, address)))

    def without(self, source: Source, endpoint: Endpoint | None = None) -> "Peer":
        """A source no longer names an address, or any. An address that no source names goes, unless the peer has answered there."""
        kept = tuple(
            replace(address, sources=address.sources - {source}) if endpoint in (None, address.endpoint) else address
            for address in self.addresses
        )
        return replace(self, addresses=tuple(address for address in kept if address.sources or address.rtt_ms is not None))

    def answered_at(self, endpoint: Endpoint | None, rtt_ms: float | None, skew_ms: int | None, now: UnixMs) -> "Peer":
        """It answered, with its key, at an address (or on a connection that was open already)."""
        smooth = rtt_ms if rtt_ms is None or self.rtt_ms is None else self.rtt_ms + RTT_WEIGHT * (rtt_ms - self.rtt_ms)
        addresses = tuple(
            replace(address, last_seen=now, rtt_ms=address.rtt_ms if rtt_ms is None else rtt_ms)
            if address.endpoint == endpoint
            else address
            for address in self.addresses
        )
        return replace(
            self,
            addresses=_in_order(addresses),
            last_answer=now,
            rtt_ms=self.rtt_ms if smooth is None else smooth,
            skew_ms=self.skew_ms if skew_ms is None else skew_ms,
            problem="",
        )

    def silent_at(self, endpoints: frozenset[Endpoint]) -> "Peer":
        """These were dialled and did not answer, or later than another: they are tried after those that do."""
        demoted = tuple(replace(address, rtt_ms=None) if address.endpoint in endpoints else address for address in self.addresses)
        return replace(self, addresses=_in_order(tuple(address for address in demoted if address.sources or address.rtt_ms is not None)))

    def usefulness(self) -> tuple[bool, bool, int, UnixMs]:
        """In what order rows stay when there are too many: settings, then who has answered, then who answers, then the latest."""
        return self.is_static, self.last_answer is not None, _STANDING[self.state], self.last_answer or self.first_seen


def dialable(addresses: Iterable[str]) -> list[Endpoint]:
    """Of the addresses in a stranger's record, those that may be dialled for it: numbers, and none of this machine or link.

    Names would make us ask a resolver of the stranger's choice.
    """
    found = []
    for text in addresses:
        try:
            host, port = split_address(text)
            address = ipaddress.ip_address(host)
        except ValueError:
            continue
        plain = address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
        if not (plain.is_loopback or plain.is_link_local or plain.is_multicast or plain.is_unspecified or plain.is_reserved):
            found.append(Endpoint(str(plain), port))
    return found


_STANDING: Final = {State.UP: 3, State.SUSPECT: 2, State.NEW: 1, State.DOWN: 0}
_TRUST: Final = {source: rank for rank, source in enumerate(Source)}


def _in_order(addresses: tuple[PeerAddress, ...]) -> tuple[PeerAddress, ...]:
    """Where it has answered first, the nearest before; then by source. A link-local address is tried last: it works on one link only."""

    def order(address: PeerAddress) -> tuple[float, int, bool]:
        rtt = float("inf") if address.rtt_ms is None else address.rtt_ms
        trust = min((_TRUST[source] for source in address.sources), default=len(_TRUST))
        return rtt, trust, address.endpoint.host.lower().startswith("fe80:")

    return tuple(sorted(addresses, key=order))
