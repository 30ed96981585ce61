"""Who is out there: peers found by settings, on the local network or through other peers, and whether they answer."""

from nexus_edge.discovery.directory import PeerDirectory, Watch
from nexus_edge.discovery.mdns import Mdns, MdnsState
from nexus_edge.discovery.peers import Endpoint, Peer, PeerAddress, Source
from nexus_edge.discovery.prober import Connection, Dialer, Prober
from nexus_edge.discovery.reachability import State

__all__ = [
    "Connection",
    "Dialer",
    "Endpoint",
    "Mdns",
    "MdnsState",
    "Peer",
    "PeerAddress",
    "PeerDirectory",
    "Prober",
    "Source",
    "State",
    "Watch",
]
