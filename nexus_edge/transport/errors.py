"""How talking to a peer fails."""

from nexus_edge.errors import PeerError


class Unreachable(PeerError):
    """Nobody answers there."""


class WrongPeer(PeerError):
    """Another node answers there, or one that cannot prove who it is. Nothing was sent to it."""


class BadAnswer(PeerError):
    """The peer's answer is not what the protocol has."""
