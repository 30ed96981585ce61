"""The secret key of a node: signs its objects, proves its id in TLS, and derives what only this node can know."""

from typing import NoReturn

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nexus_edge.errors import IdentityError
from nexus_edge.identity.ids import short_id
from nexus_edge.types import NodeId


class NodeKey:
    """The secret key of a node. Its `repr` shows the id only, and it cannot be pickled or copied."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self.private = private
        """For TLS."""
        self.id = NodeId(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> "NodeKey":
        """A fresh key, from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "NodeKey":
        """The key of a 32-byte seed. Raises `IdentityError`."""
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(seed))
        except ValueError:
            raise IdentityError("this is no node key", f"it has {len(seed)} bytes, a seed has 32") from None

    def seed(self) -> bytes:
        """The 32 bytes that are the key: for its file only."""
        return self.private.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """64 bytes. What is signed must begin with a domain of its own."""
        return self.private.sign(message)

    def secret(self, domain: str, *parts: bytes) -> bytes:
        """32 bytes that only this node can derive, the same each time from the same parts."""
        hasher = blake3(derive_key_context=f"nexus-edge 1 node secret: {domain}")
        for part in (self.seed(), *parts):
            hasher.update(len(part).to_bytes(8, "little"))
            hasher.update(part)
        return hasher.digest()

    def __repr__(self) -> str:
        return f"NodeKey({short_id(self.id)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a node key is not copied")
