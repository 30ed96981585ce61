"""Semantic types: what a number or a string of bytes is."""

from typing import Literal, NewType

ModelDigest = NewType("ModelDigest", bytes)
"""32 bytes that name a program, and its weights where they are committed."""

TensorCommitment = NewType("TensorCommitment", bytes)
"""32 bytes that bind a tensor's values, dtype, shape and scale. The same for inputs and outputs, so that proofs chain."""

Context = NewType("Context", bytes)
"""32 bytes that a proof is bound to and that mean nothing to it: a lease, a nonce."""

NO_CONTEXT = Context(bytes(32))

Milliseconds = NewType("Milliseconds", float)

Bytes = NewType("Bytes", int)

WeightsMode = Literal["committed", "inside"]
"""Where a verifying key holds the weights: behind a commitment, or in clear."""

ProofMode = Literal["zk", "plain"]
"""What a proof shows beside its statement: nothing, or functions of everything. Part of the parameter set."""

SecurityBits = Literal[100, 128]
"""Parameter set: the sum of all error terms of a proof is below two to the minus this."""
