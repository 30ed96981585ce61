"""How peers talk: mutual TLS with node keys, typed requests, refusals, and deadlines for everyone."""

from nexus_edge.transport.addresses import Caller
from nexus_edge.transport.answering import Answering
from nexus_edge.transport.client import PeerClient, PeerConnection, Ping
from nexus_edge.transport.handlers import PeerHandlers
from nexus_edge.transport.server import PeerServer

__all__ = ["Answering", "Caller", "PeerClient", "PeerConnection", "PeerHandlers", "PeerServer", "Ping"]
