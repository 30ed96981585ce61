"""The native module: programs, the executor, the prover and the verifier."""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Cancelled",
    "InputError",
    "Model",
    "NativeError",
    "ProgramBuilder",
    "ProgramError",
    "ProverError",
    "ProvingKey",
    "Rejected",
    "Seed",
    "Statement",
    "VerifyingKey",
    "__version__",
    "build_features",
    "commit_tensor",
    "protocol",
    "tensor_rows",
    "verify",
    "verify_link",
    "verify_registration",
]

__version__: str
protocol: str
"""Version of the proofs; what was accepted under another counts for nothing."""
build_features: list[str]
"""CPU features this build was compiled for, by rustc's names."""

class NativeError(Exception):
    """Base of the errors below. `kind` is a stable word for programs, the message is for people."""

    kind: str

class ProgramError(NativeError):
    """The program cannot be checked, built or run: names the operator and tensor. `place` begins with the label of the operator at fault."""

    place: str

class InputError(NativeError):
    """An array does not fit: dtype, shape, number of inputs, or values for which the model is undefined."""

class ProverError(NativeError):
    """There is no proof, although program and input are good; `kind` is one of entropy, self-check, uncovered, prover."""

class Rejected(NativeError):
    """The proof is not accepted; `kind` is one of malformed, truncated, trailing, not-canonical, statement, equation, merkle, row, degenerate."""

class Cancelled(NativeError):
    """The progress callback asked to stop."""

_Window = tuple[
    int,  # batch
    tuple[int, int],  # input height, width
    tuple[int, int],  # output height, width
    tuple[int, int],  # kernel
    tuple[int, int],  # stride
    tuple[int, int],  # padding at the top, at the left
    tuple[int, int],  # dilation
]
_Multiplier = tuple[int, int]
"""`(M, e)`: M in [2^30, 2^31) or 0, right shift e."""

@final
class ProgramBuilder:
    """Adds operators in order, then `finish` finds the digital lines, checks everything and returns the model.

    `dtype` is "int8" or "uint8"; `semantics` one of "tflm", "tflite-2.14", "litert-2.3-ref". Every method raises `ProgramError`.
    `label` names the operator in errors.
    """

    def __new__(cls, name: str, semantics: str) -> ProgramBuilder: ...
    def tensor(self, name: str, dtype: str, dims: Sequence[int], scale: float | None, zero_point: int) -> int: ...
    def input(self, tensor: int, float_edge: bool = False) -> None: ...
    def output(self, tensor: int, float_edge: bool = False) -> None: ...
    def conv(
        self,
        label: str,
        x: int,
        out: int,
        window: _Window,
        weights: NDArray[np.int32],
        bias: NDArray[np.int32] | None,
        x_zero: int,
        multipliers: Sequence[_Multiplier],
        clamp: tuple[int, int],
        depthwise: bool = False,
        single_rounding: bool = False,
    ) -> None:
        """weights: (O, KH, KW, C), or (KH, KW, C * m) for depthwise, zero point already subtracted. The output's zero point is its tensor's."""

    def mean(self, label: str, x: int, out: int, window: _Window, x_zero: int, multiplier: _Multiplier, clamp: tuple[int, int]) -> None:
        """Sum over the window (1/N folded into the multiplier), then requantise."""

    def average_pool(self, label: str, x: int, out: int, window: _Window, clamp: tuple[int, int]) -> None: ...
    def max_pool(self, label: str, x: int, out: int, window: _Window, clamp: tuple[int, int]) -> None: ...
    def add(
        self,
        label: str,
        first: int,
        second: int,
        out: int,
        multipliers: tuple[_Multiplier, _Multiplier, _Multiplier],
        clamp: tuple[int, int],
        subtract: bool = False,
    ) -> None:
        """ADD / SUB: multipliers of the first input, the second and the output. An exact plane where there is one, else a 65,536-row table."""

    def lookup(self, label: str, inputs: Sequence[int], out: int, table: NDArray[np.int16]) -> None:
        """256 values, or 65,536 for two inputs (first input major); row i belongs to min(dtype) + i."""

    def softmax(self, label: str, x: int, out: int, multiplier: int, shift: int) -> None: ...
    def view(self, label: str, out: int, pieces: Sequence[tuple[int, Sequence[tuple[int, int, int, int]]]], fill: int = 0) -> None:
        """pieces: (source, per dimension (dst_start, length, src_start, step)); cells outside all pieces are `fill`."""

    def permute(self, label: str, x: int, out: int, dims: Sequence[int], perm: Sequence[int]) -> None: ...
    def private(self, log_bounds: int | Sequence[int] | None = None) -> None:
        """Keep weights and biases out of the program. `log_bounds`: log2 V of all layers with weights, or of each; by default 14."""

    def finish(self, range_bits: int | None = None) -> Model: ...

@final
class Model:
    """A checked program with its weights."""

    program_bytes: bytes
    """Canonical encoding of the program, without weights."""
    @staticmethod
    def load(program: bytes, weights: bytes) -> Model:
        """Checks everything again. The only way from bytes to a model."""

    def weights_bytes(self) -> bytes: ...
    def run(self, inputs: Sequence[NDArray[Any]], threads: int = 0) -> list[NDArray[Any]]:
        """Exact outputs, int8 or uint8. The GIL is released; threads 0 means all."""

    def describe(self) -> dict[str, Any]:
        """Ports, operators, shapes, semantics, cells, lookups, constants and weights, for `model inspect`."""

    def commit(
        self,
        weights_inside: bool = False,
        security: int = 100,
        mode: str = "zk",
        seed: Seed | None = None,
        registered: bytes | None = None,
    ) -> ProvingKey:
        """mode: "zk" or "plain". `seed`: of a commitment to private weights that was made before, to make the same again.

        `registered` is the commitment that the model digest names, if that is another.
        """

@final
class Seed:
    """32 secret bytes, from which the random cells and the salts of one commitment follow. Overwritten when it is no longer used."""

    @staticmethod
    def fresh() -> Seed:
        """From the operating system."""

    @staticmethod
    def load(data: bytes) -> Seed: ...
    def expose(self) -> bytes:
        """The bytes, to be kept secret."""

_TensorDescription = tuple[str, Sequence[int], float | None, int]
"""dtype, dimensions, scale, zero point."""

def commit_tensor(description: _TensorDescription, array: NDArray[Any], security: int, mode: str, seed: Seed | None = None) -> bytes:
    """The 32-byte commitment to an array; in mode "zk", and only there, a function of a seed."""

def tensor_rows(description: _TensorDescription, security: int) -> dict[str, int]:
    """Of the hiding commitment to such a tensor.

    `log_domain`: log of the number of rows; `budget`: how many distinct ones may ever be opened; `per_proof`: how many one proof opens at most.
    """

@final
class VerifyingKey:
    """All that a verifier needs."""

    digest: bytes
    """The model digest, 32 bytes."""
    commitment: bytes | None
    """Of the weights, 32 bytes; None for weights inside the key."""
    registered: bool
    """Whether no registration is missing before proofs count: it is known, or nothing depends on one."""
    linked: bool
    """Whether no link is missing: it is known, or the commitment is the registered one."""
    @staticmethod
    def load(data: bytes) -> VerifyingKey: ...
    def to_bytes(self) -> bytes: ...
    def registered_key(self) -> VerifyingKey:
        """The key of the registered commitment of the same model."""

    def linked_key(self, commitment: bytes) -> VerifyingKey:
        """The key of another commitment of the same private model."""

    def admit_registration(self, digest: bytes) -> None:
        """For a caller who remembers that `verify_registration` accepted a registration of this digest."""

    def admit_link(self, digest: bytes, commitment: bytes) -> None:
        """For a caller who remembers that `verify_link` accepted a link of this commitment to this digest."""

    def model_rows(self) -> dict[str, int] | None:
        """As `tensor_rows`, of the commitment to private weights; None for one that hides nothing."""

    def describe(self) -> dict[str, Any]: ...
    def soundness(self) -> dict[str, Any]:
        """Every error term in bits, and `bits` of the sum."""

@final
class Statement:
    """What a proof says: model digest, context, one clear or committed tensor for each port."""

    @staticmethod
    def load(data: bytes) -> Statement: ...
    def to_bytes(self) -> bytes: ...
    digest: bytes
    context: bytes
    inputs: list[bytes | NDArray[Any]]
    """A 32-byte commitment, or the clear array."""
    outputs: list[bytes | NDArray[Any]]

_Opened = tuple[Seed, list[int]] | None
"""Seed and opened rows of a hiding commitment; None for one that hides nothing."""

@final
class ProvingKey:
    verifying_key: VerifyingKey
    seed: Seed | None
    """Of the commitment to private weights."""

    def committed_again(self, seed: Seed) -> ProvingKey:
        """The same private model under another commitment; its proofs need a link."""

    def prove(
        self,
        inputs: Sequence[NDArray[Any]],
        context: bytes,
        clear_inputs: bool = False,
        commit_outputs: bool = False,
        threads: int = 0,
        progress: Callable[[str, float], bool] | None = None,
        seeds: Sequence[Seed | None] = ...,
    ) -> tuple[list[NDArray[Any]], Statement, bytes, list[_Opened], _Opened, dict[str, Any]]:
        """Outputs, statement, proof, what is opened of each port's commitment and of the model's, and figures.

        The figures are `phases_ms`, `cells`, `lookups`, `security_bits`. `seeds` are those of commitments that were made before, by port, inputs
        first.

        `progress(phase, fraction)` is called between steps; returning False raises `Cancelled`.
        """

    def register(self, threads: int = 0, progress: Callable[[str, float], bool] | None = None) -> tuple[bytes, list[_Opened]]:
        """Proof that private weights are what the program assumes of them, and what it opens of their commitment."""

    def link(
        self, fresh: Sequence[ProvingKey], threads: int = 0, progress: Callable[[str, float], bool] | None = None
    ) -> tuple[bytes, list[_Opened]]:
        """Proof that other commitments hold the same weights, and what it opens of each commitment, this one's first."""

def verify(key: VerifyingKey, statement: Statement, proof: bytes) -> None:
    """Raises `Rejected` unless the proof shows the statement."""

def verify_registration(key: VerifyingKey, proof: bytes) -> None:
    """Raises `Rejected` unless the proof shows that the key's private weights are what its program assumes of them.

    Until it has not raised, the key accepts no proof of a private model.
    """

def verify_link(registered: VerifyingKey, fresh: Sequence[VerifyingKey], proof: bytes) -> None:
    """Raises `Rejected` unless the proof shows that all keys commit to the weights of the first; the others take notice."""
