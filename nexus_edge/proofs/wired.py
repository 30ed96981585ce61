"""Tensors as peers send them: the program's integers, one tensor after the other in the model's order, with the commitments to them.

Float edges do not occur here: whoever has floats quantises them (`nexus_edge.proofs.ports`) before anything is committed to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from nexus_edge.errors import BadInput, OpeningError, OpeningSpent
from nexus_edge.proofs._native import Seed
from nexus_edge.proofs.holding import HeldOpening
from nexus_edge.proofs.key import ProvingKey, VerifyingKey
from nexus_edge.proofs.opening import Opening, commitment_of
from nexus_edge.proofs.ports import Array, Port, to_integers
from nexus_edge.types import Digest, TensorCommitment
from nexus_edge.wire.digests import derive, input_commitment

SEED: Final = 32


@dataclass(frozen=True)
class CommittedInputs:
    """What a requester keeps of one input: it makes a lease's `inc` and the input that goes to its worker."""

    data: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    """32 bytes an input, secret; empty where nothing is hidden."""
    commitments: tuple[TensorCommitment, ...]
    openings: tuple[HeldOpening, ...] = field(repr=False)
    """Count what was handed out of each commitment; none where nothing is hidden."""

    @property
    def inc(self) -> Digest:
        """The one commitment that a lease names."""
        return input_commitment(self.commitments)

    @property
    def proofs_left(self) -> int | None:
        """How many proofs others may still be allowed; None for as many as one likes."""
        return min((held.read().account.proofs_left for held in self.openings), default=None)

    def hand_out(self, proofs: int) -> int:
        """Take so many proofs off the budget, and return that number for the worker. Raises `OpeningSpent`, having taken nothing.

        After that commit afresh: a worker that was lost may have proved.
        """
        left = self.proofs_left
        if left is not None and proofs > left:
            why = f"{proofs} proofs were asked for, {left} may still be made of the commitment"
            raise OpeningSpent("the input cannot be handed out", why, "commit to it afresh")
        for held in self.openings:
            held.share(proofs)
        return proofs


def commit_inputs(key: VerifyingKey, arrays: Sequence[Array]) -> CommittedInputs:
    """Commit to a user's arrays, one a port, under fresh seeds. Raises `BadInput`."""
    integers = to_integers(key.inputs, arrays)
    data = b"".join(array.tobytes() for array in integers)
    seeds = [] if key.mode == "plain" else [Seed.fresh() for _ in integers]
    commitments = _commitments(key, integers, seeds)
    openings = [
        HeldOpening(Opening.fresh(port.tensor, key.security, commitment, seed))
        for port, commitment, seed in zip(key.inputs, commitments, seeds, strict=False)
    ]
    return CommittedInputs(data, b"".join(seed.expose() for seed in seeds), commitments, tuple(openings))


def input_commitments(key: VerifyingKey, data: bytes, seed: bytes) -> tuple[TensorCommitment, ...]:
    """The commitments to an input as a peer sent it. Raises `BadInput`."""
    return _commitments(key, read_tensors(key.inputs, data, "input"), input_seeds(key, seed))


def input_openings(key: VerifyingKey, commitments: Sequence[TensorCommitment], seed: bytes, proofs: int) -> list[HeldOpening | None]:
    """A worker's openings of a requester's commitments, each for so many proofs. Raises `BadInput`."""
    seeds = input_seeds(key, seed)
    if not seeds:
        return [None] * len(key.inputs)
    try:
        return [
            HeldOpening(Opening.fresh(port.tensor, key.security, commitment, one)).share(proofs)
            for port, commitment, one in zip(key.inputs, commitments, seeds, strict=True)
        ]
    except OpeningSpent as more:
        raise BadInput("the input cannot be used", f"no commitment has openings for {proofs} proofs: {more.why}") from more


def input_seeds(key: VerifyingKey, seed: bytes) -> list[Seed]:
    """The seeds of the inputs, none of plain commitments. Raises `BadInput`."""
    expected = 0 if key.mode == "plain" else SEED * len(key.inputs)
    if len(seed) != expected:
        raise BadInput("the seeds do not fit the model", f"{expected} bytes were expected, got {len(seed)}")
    return _seeds(seed)


def output_seeds(key: VerifyingKey, seed: bytes) -> list[Seed | None]:
    """A seed for the commitment to each output, all from one of 32 bytes. Raises `OpeningError`."""
    if key.mode == "plain":
        return [None] * len(key.outputs)
    if len(seed) != SEED:
        raise OpeningError("the output's seed cannot be used", f"{SEED} bytes were expected, got {len(seed)}")
    return [Seed.load(derive("output seed", bytes([index]), seed)) for index in range(len(key.outputs))]


def output_commitment(commitments: Sequence[TensorCommitment]) -> Digest:
    """A result's `outc`: the commitment to the one output, or the digest of the commitments to several in the model's order."""
    return Digest(bytes(commitments[0])) if len(commitments) == 1 else derive("outputs", *commitments)


def read_tensors(ports: Sequence[Port], data: bytes, noun: str) -> list[Array]:
    """The integers in a peer's bytes. Raises `BadInput`."""
    sizes = [port.storage.itemsize * int(np.prod(port.shape, dtype=np.int64)) for port in ports]
    if len(data) != sum(sizes):
        raise BadInput(f"the {noun} does not fit the model", f"{sum(sizes)} bytes were expected, got {len(data)}")
    tensors, start = [], 0
    for port, size in zip(ports, sizes, strict=True):
        tensors.append(np.frombuffer(data, dtype=port.storage.newbyteorder("<"), count=size // port.storage.itemsize, offset=start))
        start += size
    return [tensor.astype(port.storage).reshape(port.shape) for port, tensor in zip(ports, tensors, strict=True)]


def tensor_bytes(ports: Sequence[Port]) -> int:
    """How long the bytes of these tensors are."""
    return sum(port.storage.itemsize * int(np.prod(port.shape, dtype=np.int64)) for port in ports)


def without_float_edges(key: VerifyingKey) -> VerifyingKey:
    """The same key for one who has the program's integers."""
    bare = VerifyingKey(key.native)
    bare.inputs = tuple(replace(port, float_edge=False) for port in key.inputs)
    bare.outputs = tuple(replace(port, float_edge=False) for port in key.outputs)
    return bare


def proving_without_float_edges(key: ProvingKey) -> ProvingKey:
    """Likewise, for a prover."""
    bare = ProvingKey(key.native, key.secret)
    bare.verifying_key = without_float_edges(key.verifying_key)
    return bare


def _commitments(key: VerifyingKey, integers: Sequence[Array], seeds: Sequence[Seed]) -> tuple[TensorCommitment, ...]:
    chosen: list[Seed | None] = [*seeds] or [None] * len(integers)
    return tuple(
        commitment_of(port.tensor, array, key.security, seed) for port, array, seed in zip(key.inputs, integers, chosen, strict=True)
    )


def _seeds(seed: bytes) -> list[Seed]:
    return [Seed.load(seed[start : start + SEED]) for start in range(0, len(seed), SEED)]
