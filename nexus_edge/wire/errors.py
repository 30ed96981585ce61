"""What is wrong with bytes from a peer."""

from nexus_edge.errors import NexusEdgeError


class BadObject(NexusEdgeError):
    """The bytes are not a canonical object of the expected type, or its signature is wrong."""

    def __init__(self, why: str) -> None:
        super().__init__("the object is malformed", why)
