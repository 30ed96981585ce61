"""The state of an import: which program tensor holds each tensor of the file, and the moves between layouts.

A program tensor has a *stored* shape of which only (positions, channels) matter to arithmetic. A RESHAPE of the file is therefore no
operator here: the value keeps its stored shape, and is permuted only when an operator needs another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nexus_edge.proofs import _native
from nexus_edge.proofs.importers.graph import Graph, Operator, TensorInfo
from nexus_edge.proofs.importers.quantization import INT32, RANGES, Quantization
from nexus_edge.proofs.importers.shapes import Dims, Range, broadcast, padded, positions, refinement, repeat, whole

MAX_FOLDED_TOTAL = 1 << 24
"""Elements of all folded constants together."""

MAX_RULES = 1 << 20
"""Channels of all contractions and positions of all ragged pools together: each has a requantisation of its own."""


@dataclass(frozen=True)
class Value:
    """A tensor that the model computes."""

    id: int
    stored: Dims
    dims: Dims
    """The shape the file gives it; as many elements as `stored`."""
    info: TensorInfo
    """Where it comes from, for messages."""

    @property
    def rows(self) -> tuple[int, int]:
        """(positions, channels) of the file's shape."""
        return positions(self.dims), self.dims[-1]


@dataclass(frozen=True)
class Padded:
    """What a PAD makes; added to the program only if something else than a convolution's window reads it."""

    source: Value
    before: Dims
    fill: int
    dims: Dims
    info: TensorInfo


@dataclass(frozen=True)
class Constant:
    """A tensor known at import."""

    array: NDArray[Any]
    info: TensorInfo


@dataclass(frozen=True)
class FloatEdge:
    """A float32 tensor at the edge of the model: an input before its QUANTIZE, or an output after its DEQUANTIZE."""

    info: TensorInfo
    inside: Value
    is_input: bool


Known = Value | Padded | Constant | FloatEdge


def native_dims(dims: Dims) -> Dims:
    """Program tensors have at least one dimension."""
    return dims or (1,)


class Lowering:
    """Walks the graph's tensors while the operators add to the program builder."""

    def __init__(
        self, graph: Graph, builder: _native.ProgramBuilder, semantics: str, aliases: Mapping[int, str], private: bool = False
    ) -> None:
        self.graph, self.builder, self.semantics = graph, builder, semantics
        self.private = private
        """Whether constants that take part in arithmetic are the owner's secret: nothing public may be computed from them."""
        self.aliases = aliases
        """Names of tensors at float edges: that of the float tensor outside."""
        self.known: dict[int, Known] = {}
        self._names: set[str] = set()
        self._layouts: dict[tuple[int, Dims], int] = {}
        self._constants: dict[tuple[int, Dims], Value] = {}
        self._folded = 0
        self._rules = 0

    def get(self, op: Operator, position: int) -> Known:
        """An input of an operator, defined before it."""
        index = op.inputs[position] if position < len(op.inputs) else -1
        if index < 0:
            raise op.malformed(f"input {position} is missing")
        if index in self.known:
            return self.known[index]
        info = self.graph.tensors[index]
        if info.data is None:
            raise op.malformed("it is used before it is defined", info)
        self.known[index] = Constant(info.data, info)
        return self.known[index]

    def value(self, op: Operator, position: int) -> Value:
        """An input that the model computes."""
        found = self.get(op, position)
        if isinstance(found, FloatEdge):
            raise op.unsupported("float arithmetic cannot be proved; only QUANTIZE may read a float input", found.info)
        if isinstance(found, Constant):
            raise op.unsupported("this input must be computed, not constant", found.info)
        return self.pad(op, found) if isinstance(found, Padded) else found

    def pad(self, op: Operator, padded: Padded) -> Value:
        """The padded tensor as a tensor of the program."""
        source = self.as_shape(op, padded.source, padded.source.dims)
        ranges: list[Range] = [(before, dim, 0, 1) for before, dim in zip(padded.before, source.dims, strict=True)]
        out = self.define(op, padded.info, padded.dims)
        self.builder.view(op.label, out.id, [(source.id, ranges)], padded.fill)
        self.known[padded.info.index] = out
        return out

    def constant(self, op: Operator, position: int, *dtypes: str) -> NDArray[Any]:
        """An input that is known at import."""
        found = self.get(op, position)
        if not isinstance(found, Constant):
            raise op.unsupported("it must be constant", found.info, "models with dynamic shapes or computed weights cannot be proved")
        if found.info.dtype not in dtypes:
            raise op.unsupported(f"its type is {found.info.dtype}, not {' or '.join(dtypes)}", found.info)
        return found.array

    def file_dims(self, op: Operator, position: int) -> Dims:
        """The shape of an input in the file: scalars have none."""
        return self.graph.tensors[op.inputs[position]].dims

    def optional(self, op: Operator, position: int, *dtypes: str) -> NDArray[Any] | None:
        """As `constant`, for an input that may be absent."""
        return self.constant(op, position, *dtypes) if position < len(op.inputs) and op.inputs[position] >= 0 else None

    def output(self, op: Operator) -> TensorInfo:
        """The one output of an operator, not defined before and of an integer type that the program has."""
        if len(op.outputs) != 1:
            raise op.malformed(f"it has {len(op.outputs)} outputs instead of one")
        info = self.graph.tensors[op.outputs[0]]
        if info.index in self.known or info.data is not None:
            raise op.malformed("its output is defined twice", info)
        return info

    def activation(self, op: Operator, info: TensorInfo) -> TensorInfo:
        """`info`, checked to be int8 or uint8 and not empty, with zero points of that type."""
        if info.dtype not in RANGES:
            raise op.unsupported(f"its type is {info.dtype}: only int8 and uint8 are supported", info)
        low, high = RANGES[info.dtype]
        if not all(low <= zero <= high for zero in info.zero_points):
            raise op.malformed(f"a zero point is no {info.dtype}", info)
        if 0 in info.dims:
            raise op.unsupported("it is empty", info)
        return info

    def quantization(self, op: Operator, info: TensorInfo) -> Quantization:
        """Per-tensor quantisation of an activation."""
        self.activation(op, info)
        if len(info.scales) != 1:
            raise op.unsupported("it has no per-tensor quantisation", info)
        return Quantization(info.dtype, info.scales[0], info.zero_points[0])

    def same_quantization(self, op: Operator, *infos: TensorInfo) -> None:
        """Refuses tensors of different type, scale or zero point: there the runtimes refuse or disagree."""
        for info in infos[1:]:
            if (info.dtype, info.scales, info.zero_points) != (infos[0].dtype, infos[0].scales, infos[0].zero_points):
                raise op.unsupported(f"its type or scale differs from that of {infos[0].name!r}", info, "requantise with QUANTIZE first")

    def define(self, op: Operator, info: TensorInfo, stored: Dims | None = None, dims: Dims | None = None) -> Value:
        """A new program tensor for the file's tensor, stored in its own shape unless told."""
        self.activation(op, info)
        value = self.scratch(info, native_dims(info.dims) if stored is None else stored)
        return replace(value, dims=native_dims(info.dims) if dims is None else dims)

    def scratch(self, info: TensorInfo, stored: Dims, prefix: str = "") -> Value:
        """A new program tensor with the type and scale of `info`."""
        scale = info.scales[0] if len(info.scales) == 1 else None
        zero = info.zero_points[0] if len(info.scales) == 1 else 0
        name = self.unique(prefix + self.aliases.get(info.index, info.name))
        return Value(self.builder.tensor(name, info.dtype, stored, scale, zero), stored, stored, info)

    def unique(self, name: str) -> str:
        """A name that no tensor has yet."""
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}#{number}"
        self._names.add(found)
        return found

    def bind(self, op: Operator, value: Value | Padded) -> None:
        """Makes `value` the operator's output; its shape must be the declared one."""
        info = self.output(op)
        self.known[info.index] = replace(value, dims=self.declared(op, info, value.dims), info=info)

    def declared(self, op: Operator, info: TensorInfo, dims: Dims) -> Dims:
        """The shape of an output, which must be as computed."""
        if native_dims(dims) != native_dims(info.dims):
            raise op.malformed(f"its output has shape {list(dims)} but is declared as {list(info.dims)}", info)
        return native_dims(info.dims)

    def bind_constant(self, op: Operator, array: NDArray[Any]) -> None:
        """Makes a folded constant the operator's output."""
        info = self.output(op)
        self._folded += array.size
        if self._folded > MAX_FOLDED_TOTAL:
            raise op.unsupported(f"constants computed at import exceed {MAX_FOLDED_TOTAL} elements", info)
        self.known[info.index] = Constant(array, info)

    def count_rules(self, op: Operator, number: int) -> None:
        """Bounds the requantisations of a model before any is solved."""
        self._rules += number
        if self._rules > MAX_RULES:
            raise op.unsupported(f"the model has more than {MAX_RULES} channels, border positions and table rows to requantise")

    def as_rows(self, op: Operator, value: Value) -> Value:
        """The value stored with the (positions, channels) of its shape."""
        if (positions(value.stored), value.stored[-1]) == value.rows:
            return value
        return self.as_shape(op, value, value.dims)

    def as_shape(self, op: Operator, value: Value, dims: Dims) -> Value:
        """The value stored as `dims`, which may also regroup its shape."""
        if value.stored == dims:
            return replace(value, dims=dims)
        key = (value.id, dims)
        if key not in self._layouts:
            fine = refinement(value.stored, dims) or (prod(dims),)
            out = self.scratch(value.info, dims)
            self.builder.permute(op.label, value.id, out.id, fine, range(len(fine)))
            self._layouts[key] = out.id
        return Value(self._layouts[key], dims, dims, value.info)

    def broadcast(self, op: Operator, value: Value, dims: Dims) -> Value:
        """The value repeated to `dims`, stored so."""
        source = self.as_shape(op, value, padded(value.dims, len(dims)))
        if source.dims == dims:
            return source
        out = self.scratch(value.info, dims, "broadcast ")
        self.builder.view(op.label, out.id, [(source.id, repeat(source.dims, dims))])
        return out

    def operands(self, op: Operator, first: Value, second: Value, out: TensorInfo) -> tuple[Value, Value, Value]:
        """Two inputs and the output of an elementwise operator, all stored in one shape."""
        dims = broadcast(first.dims, second.dims)
        if dims is None:
            raise op.malformed(f"the shapes {list(first.dims)} and {list(second.dims)} cannot be combined", out)
        self.declared(op, out, dims)
        if first.dims == second.dims and first.stored == second.stored:
            return first, second, self.define(op, out, first.stored)
        return self.broadcast(op, first, dims), self.broadcast(op, second, dims), self.define(op, out, dims)

    def synthesize(self, op: Operator, constant: Constant, anchor: Value, zero: int) -> Value:
        """A program tensor that holds a constant: a contraction with zero weights, whose outputs are its biases.

        Every channel then has one reachable output, which the proof treats as public: it costs nothing.
        """
        dims = native_dims(constant.array.shape)
        key = (constant.info.index, dims)
        if key not in self._constants:
            size = prod(dims)
            cell = self.scratch(anchor.info, (1,) * len(anchor.stored), "cell of ")
            piece: list[Range] = [(0, 1, 0, 1)] * len(anchor.stored)
            self.builder.view(op.label, cell.id, [(anchor.id, piece)])
            flat = self.scratch(constant.info, (1, size))
            biases = constant.array.reshape(-1).astype(np.int32) - zero
            self.count_rules(op, size)
            window = (1, (1, 1), (1, 1), (1, 1), (1, 1), (0, 0), (1, 1))
            weights = np.zeros((size, 1, 1, 1), np.int32)
            clamp = RANGES[constant.info.dtype]
            cell_zero = anchor.info.zero_points[0] if len(anchor.info.scales) == 1 else 0
            self.builder.conv(op.label, cell.id, flat.id, window, weights, biases, cell_zero, [(1 << 30, -1)] * size, clamp)
            self._constants[key] = replace(flat, dims=dims)
        return self._constants[key]

    def copy(self, op: Operator, value: Value) -> Value:
        """The value in a tensor of its own."""
        out = self.scratch(value.info, value.stored, "copy of ")
        self.builder.view(op.label, out.id, [(value.id, whole(value.stored))])
        return out


def require_int32(op: Operator, what: str, low: int, high: int) -> None:
    """Refuses numbers that the kernel's int32 cannot hold."""
    if not INT32[0] <= low <= high <= INT32[1]:
        raise op.unsupported(f"{what} can leave int32, where the reference kernels overflow")
