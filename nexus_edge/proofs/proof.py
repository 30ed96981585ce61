"""Proofs and what they say, as values and as files."""

from dataclasses import dataclass

from nexus_edge.errors import ProofRejected, RejectReason
from nexus_edge.proofs import _native
from nexus_edge.proofs.container import MIB, ContainerError, Format, Section
from nexus_edge.proofs.native_errors import translated
from nexus_edge.proofs.ports import Array
from nexus_edge.types import Context, ModelDigest, TensorCommitment

FORMAT = Format(b"NXEPROOF", 1, (Section("statement", 256 * MIB), Section("proof", 64 * MIB)))
"""A statement and the proof of it: docs/protocol.md."""


class Statement:
    """What a proof says: this model, on these inputs, gives these outputs. A tensor is clear or a commitment."""

    def __init__(self, native: _native.Statement) -> None:
        self.native = native

    @classmethod
    def from_bytes(cls, data: bytes) -> "Statement":
        """Decode strictly. Raises `ProofRejected`."""
        with translated():
            return cls(_native.Statement.load(data))

    def to_bytes(self) -> bytes:
        """The canonical encoding."""
        return self.native.to_bytes()

    @property
    def digest(self) -> ModelDigest:
        """The model that the statement is about."""
        return ModelDigest(self.native.digest)

    @property
    def context(self) -> Context:
        """The 32 bytes that the proof is bound to."""
        return Context(self.native.context)

    @property
    def inputs(self) -> list[TensorCommitment | Array]:
        """One commitment, or the program's integers, for each input."""
        return [_tensor(value) for value in self.native.inputs]

    @property
    def outputs(self) -> list[TensorCommitment | Array]:
        """One commitment, or the program's integers, for each output."""
        return [_tensor(value) for value in self.native.outputs]


@dataclass(frozen=True)
class Proof:
    """A statement and the bytes that prove it."""

    statement: Statement
    body: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> "Proof":
        """Decode strictly. Raises `ProofRejected`."""
        try:
            statement, body = FORMAT.decode(data)
        except ContainerError as broken:
            raise ProofRejected(RejectReason(broken.fault.value), broken.why) from broken
        return cls(Statement.from_bytes(statement), body)

    def to_bytes(self) -> bytes:
        """The proof as a file."""
        return FORMAT.encode(self.statement.to_bytes(), self.body)


def _tensor(value: bytes | Array) -> TensorCommitment | Array:
    return TensorCommitment(value) if isinstance(value, bytes) else value
