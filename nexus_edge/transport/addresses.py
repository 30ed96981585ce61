"""Who asks, and from where."""

from dataclasses import dataclass

from nexus_edge.types import NodeId
from nexus_edge.wire.addresses import is_private as is_private
from nexus_edge.wire.addresses import join_address as join_address
from nexus_edge.wire.addresses import prefix_of as prefix_of
from nexus_edge.wire.addresses import split_address as split_address


@dataclass(frozen=True)
class Caller:
    """Who asks: the key of the TLS handshake, and from where."""

    peer: NodeId
    address: str
    port: int

    @property
    def prefix(self) -> str:
        """What its address is counted under."""
        return prefix_of(self.address)

    @property
    def private(self) -> bool:
        """Whether it is on a network of our own."""
        return is_private(self.address)
