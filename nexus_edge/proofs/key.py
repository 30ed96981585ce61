"""Keys: what a prover and a verifier need of a model."""

from typing import Any

from nexus_edge.errors import ProofRejected, RejectReason
from nexus_edge.proofs import _native
from nexus_edge.proofs.container import MIB
from nexus_edge.proofs.model import Model
from nexus_edge.proofs.native_errors import translated
from nexus_edge.proofs.ports import Port
from nexus_edge.types import ModelDigest, ProofMode, SecurityBits, WeightsMode

KEY_LIMIT = 1024 * MIB
"""The most bytes a verifying key may have (one with the weights inside grows with the model)."""


class VerifyingKey:
    """All that a verifier needs of a model; it yields its own model digest."""

    def __init__(self, native: _native.VerifyingKey) -> None:
        self.native = native
        description = native.describe()
        self.inputs = tuple(Port.from_native(port) for port in description["inputs"])
        self.outputs = tuple(Port.from_native(port) for port in description["outputs"])
        self.mode: ProofMode = description["mode"]
        self.security: SecurityBits = description["security"]

    @classmethod
    def from_bytes(cls, data: bytes) -> "VerifyingKey":
        """Load and check a key. Raises `ProofRejected`: without a key there is nothing to accept."""
        try:
            return cls(_native.VerifyingKey.load(data))
        except _native.NativeError as broken:
            raise ProofRejected(RejectReason.MALFORMED, f"verifying key: {broken}") from broken

    def to_bytes(self) -> bytes:
        """The key as a file."""
        return self.native.to_bytes()

    @property
    def digest(self) -> ModelDigest:
        """The model digest."""
        return ModelDigest(self.native.digest)

    def describe(self) -> dict[str, Any]:
        """As `Model.describe`, and what a proof has: `mode`, `cells`, `lookups`, `proof_bytes`."""
        described = self.native.describe()
        described["inputs"] = [port.describe() for port in self.inputs]
        described["outputs"] = [port.describe() for port in self.outputs]
        return described

    def soundness(self) -> dict[str, Any]:
        """Every error term of a proof in bits, and `bits` of their sum."""
        return self.native.soundness()


class ProvingKey:
    """A committed model."""

    def __init__(self, native: _native.ProvingKey) -> None:
        self.native = native
        self.verifying_key = VerifyingKey(native.verifying_key)


def commit_model(model: Model, weights: WeightsMode = "committed", security: SecurityBits = 100, mode: ProofMode = "zk") -> ProvingKey:
    """Commit to a model, once for all its proofs.

    `weights="committed"` makes a small key for verifiers without the weights; `"inside"` a larger key, and smaller, faster proofs. Proofs are
    zero-knowledge, or with `mode="plain"` a little faster and smaller and no secret of their input. Keys of the two modes have different
    digests.

    >>> from nexus_edge.data import demo_model
    >>> key = commit_model(Model.from_tflite(demo_model()))
    >>> len(key.verifying_key.digest)
    32
    """
    with translated():
        return ProvingKey(model.native.commit(weights == "inside", security, mode))
