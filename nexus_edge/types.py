"""Semantic types: what a number or a string of bytes is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NewType

ModelDigest = NewType("ModelDigest", bytes)
"""32 bytes that name a program, and its weights where they are committed."""

TensorCommitment = NewType("TensorCommitment", bytes)
"""32 bytes that bind a tensor's values, dtype, shape and scale. The same for inputs and outputs, so that proofs chain."""

WeightsCommitment = NewType("WeightsCommitment", bytes)
"""32 bytes that bind the weights of a model."""

Context = NewType("Context", bytes)
"""32 bytes that a proof is bound to and that mean nothing to it: a lease, a nonce."""

NO_CONTEXT = Context(bytes(32))

NodeId = NewType("NodeId", bytes)
"""A node's Ed25519 public key: 32 bytes, none of small order."""

Digest = NewType("Digest", bytes)
"""32 bytes of BLAKE3 under the domain of what they name."""

JobId = NewType("JobId", bytes)
"""16 random bytes that the requester chose; they follow a job through logs, receipts and screens."""

MicroCredits = NewType("MicroCredits", int)
"""Money. One credit is a million; one is a core-millisecond of a reference core."""

NOTHING = MicroCredits(0)

UnixMs = NewType("UnixMs", int)
"""A wall clock's milliseconds since 1970: for records and people, never for money or deadlines."""

EPOCH = UnixMs(0)

Milliseconds = NewType("Milliseconds", float)

Bytes = NewType("Bytes", int)

WeightsMode = Literal["committed", "inside"]
"""Where a verifying key holds the weights: behind a commitment, or in clear."""

ProofMode = Literal["zk", "plain"]
"""What a proof shows beside its statement: nothing, or functions of everything. Part of the parameter set."""


@dataclass(frozen=True)
class PrivateForm:
    """How a model whose weights nobody else sees is compiled: its public program depends on shapes and scales only."""

    log_bounds: int | Sequence[int] | None = None
    """The owner's `log2 V` for all layers with weights, or for each in order: values before a clamp lie in [-V, V). By default 14, which
    suits most models."""


SecurityBits = Literal[100, 128]
"""Parameter set: the sum of all error terms of a proof is below two to the minus this."""
