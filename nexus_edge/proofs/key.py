"""Keys: what a prover and a verifier need of a model."""

from pathlib import Path
from typing import Any

from nexus_edge.errors import OpeningError, ProofRejected, RejectReason, UnsupportedModel
from nexus_edge.proofs import _native
from nexus_edge.proofs.container import MIB
from nexus_edge.proofs.model import Model
from nexus_edge.proofs.native_errors import translated
from nexus_edge.proofs.ports import Port
from nexus_edge.proofs.rows import RowAccount
from nexus_edge.proofs.secret import CompiledAs, HeldSecret, ModelSecret, ModelSecretFile, SecretHolder
from nexus_edge.types import ModelDigest, ProofMode, SecurityBits, WeightsCommitment, WeightsMode

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
        self.is_private: bool = description["log_bounds"] is not None and description["committed_weights"]
        """Whether only the model's owner knows its weights."""

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

    @property
    def commitment(self) -> WeightsCommitment | None:
        """The commitment to the weights; None for weights inside."""
        root = self.native.commitment
        return None if root is None else WeightsCommitment(root)

    def require_evidence(self) -> None:
        """Raise `ProofRejected` unless a private model is known to be registered, and the key's commitment to be linked with it."""
        if not self.native.registered:
            raise ProofRejected(
                RejectReason.UNREGISTERED,
                f"the weights of model {self.digest.hex()} are private, and no verified registration of it is known",
                "get the registration from the model's owner: `verify --registration`, or once `nexus-edge model verify-registration`",
            )
        if not self.native.linked:
            raise ProofRejected(
                RejectReason.UNLINKED,
                f"the key's commitment is not the registered one of model {self.digest.hex()}, and no verified link to it is known",
                "get the link from the model's owner: `verify --link`, or once `nexus-edge model verify-link`",
            )

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
    """A committed model. Of a private one, `secret` counts what is opened of its commitment."""

    def __init__(self, native: _native.ProvingKey, secret: SecretHolder | None = None) -> None:
        self.native = native
        self.verifying_key = VerifyingKey(native.verifying_key)
        self.secret = secret

    def save_secret(self, path: Path | str) -> ModelSecretFile:
        """Move the secret of a private model to a new file of mode 0600, which from then on counts."""
        if not isinstance(self.secret, HeldSecret):
            raise OpeningError("there is no secret to save", "the model is not private, or its secret is in a file already")
        file = self.secret.save(path)
        self.secret = file
        return file

    def committed_again(self) -> "ProvingKey":
        """A fresh commitment of the same private model, with a budget of its own. Its proofs need a link: `nexus_edge.proofs.link`."""
        with translated():
            native = self.native.committed_again(_native.Seed.fresh())
        return ProvingKey(native, _fresh_secret(native, self.verifying_key.commitment))


def commit_model(model: Model, weights: WeightsMode = "committed", security: SecurityBits = 100, mode: ProofMode = "zk") -> ProvingKey:
    """Commit to a model, once for all its proofs.

    `weights="committed"` makes a small key for verifiers without the weights; `"inside"` a larger key, and smaller, faster proofs. Proofs are
    zero-knowledge, or with `mode="plain"` a little faster and smaller and no secret of their input. Keys of the two modes have different
    digests. The commitment to private weights has a secret, which counts what proofs open of it: `ProvingKey.save_secret` keeps it.

    >>> from nexus_edge.data import demo_model
    >>> key = commit_model(Model.from_tflite(demo_model()))
    >>> len(key.verifying_key.digest)
    32
    """
    if model.is_private and weights == "inside":
        raise UnsupportedModel("the weights are private", "a key with the weights inside shows them", "commit to them")
    if model.is_private and mode == "plain":
        raise UnsupportedModel("the weights are private", "plain proofs show functions of them", "make zero-knowledge proofs")
    with translated():
        native = model.native.commit(weights == "inside", security, mode)
    return ProvingKey(native, _fresh_secret(native))


def reopen_model(model: Model, secret: SecretHolder) -> ProvingKey:
    """The commitment of a private model that was made before. Raises `OpeningError` if the secret is of another model."""
    known = secret.read()
    registered = None if known.is_registered else known.registered
    with translated():
        native = model.native.commit(security=known.security, seed=known.seed, registered=registered)
    key = ProvingKey(native, secret)
    # A commitment to other weights under the same seed must never leave: it would show the difference between the two.
    if (key.verifying_key.digest, key.verifying_key.commitment) != (known.digest, known.commitment):
        raise OpeningError("the secret does not fit", f"it is of model {known.digest.hex()}, which this model file is not")
    if native.verifying_key.model_rows() != known.sizes:
        raise OpeningError("the secret does not fit", "its commitment has another number of rows")
    return key


def _fresh_secret(native: _native.ProvingKey, registered: WeightsCommitment | None = None) -> HeldSecret | None:
    """The secret of a new commitment that hides the weights: nothing is opened of it yet. `registered` if that is another."""
    key = native.verifying_key
    sizes, commitment = key.model_rows(), key.commitment
    if native.seed is None or sizes is None or commitment is None:
        return None
    described = key.describe()
    return HeldSecret(
        ModelSecret(
            compiled=CompiledAs(described["name"], described["semantics"], tuple(described["log_bounds"])),
            security=described["security"],
            digest=ModelDigest(key.digest),
            registered=registered or WeightsCommitment(commitment),
            commitment=WeightsCommitment(commitment),
            seed=native.seed,
            sizes=sizes,
            account=RowAccount.fresh(**sizes),
        )
    )
