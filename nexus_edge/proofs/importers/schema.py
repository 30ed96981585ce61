"""Parses a .tflite file into a `Graph`, believing nothing in it.

The generated readers of the `tflite` package follow offsets blindly. Everything here therefore happens inside `parse`, which turns
whatever they raise into `MalformedModel`, and under a budget: flatbuffer tables may overlap, so that a small file can describe many large
vectors, but an honest one holds each of its vectors once.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from nexus_edge.errors import MalformedModel, UnsupportedModel
from nexus_edge.proofs.importers.graph import Graph, Operator, Option, TensorInfo

MAX_RANK = 6
MAX_ELEMENTS = 1 << 24
"""Elements of a tensor that the model computes; constants are bounded by the file."""
MAX_OPERATORS = 1 << 16
MAX_NAME = 160
"""Bytes of a tensor's name that are kept."""

DTYPES: dict[int, str] = {
    tflite.TensorType.FLOAT32: "float32",
    tflite.TensorType.INT32: "int32",
    tflite.TensorType.UINT8: "uint8",
    tflite.TensorType.INT64: "int64",
    tflite.TensorType.BOOL: "bool",
    tflite.TensorType.INT16: "int16",
    tflite.TensorType.INT8: "int8",
}
TYPE_NAMES = {value: name for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}
KINDS = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}

_ACTIVATION = ("FusedActivationFunction",)
_POOL = ("Pool2DOptions", ("Padding", "StrideW", "StrideH", "FilterWidth", "FilterHeight", *_ACTIVATION))
OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ADD": ("AddOptions", _ACTIVATION),
    "AVERAGE_POOL_2D": _POOL,
    "CAST": ("CastOptions", ()),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", *_ACTIVATION)),
    "CONV_2D": ("Conv2DOptions", ("Padding", "StrideW", "StrideH", "DilationWFactor", "DilationHFactor", *_ACTIVATION)),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        ("Padding", "StrideW", "StrideH", "DepthMultiplier", "DilationWFactor", "DilationHFactor", *_ACTIVATION),
    ),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("WeightsFormat", "KeepNumDims", *_ACTIVATION)),
    "GATHER": ("GatherOptions", ("Axis", "BatchDims")),
    "MAX_POOL_2D": _POOL,
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "MUL": ("MulOptions", _ACTIVATION),
    "PACK": ("PackOptions", ("ValuesCount", "Axis")),
    "REDUCE_PROD": ("ReducerOptions", ("KeepDims",)),
    "RESHAPE": ("ReshapeOptions", ("NewShape",)),
    "SHAPE": ("ShapeOptions", ()),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "SQUEEZE": ("SqueezeOptions", ("SqueezeDims",)),
    "STRIDED_SLICE": ("StridedSliceOptions", ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset")),
    "SUB": ("SubOptions", _ACTIVATION),
}
"""Table of options and the fields that matter; operators that are not here have none."""

_READ_ERRORS = (struct.error, ValueError, TypeError, IndexError, OverflowError, AttributeError, AssertionError)
"""What the generated readers raise on offsets that lead nowhere."""


def parse(data: bytes) -> Graph:
    """Reads a model of one subgraph.

    Raises `MalformedModel` for bytes that are no such model and `UnsupportedModel` for sub-byte, sparse or variable tensors and several
    subgraphs.
    """
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise MalformedModel("not a TensorFlow Lite model", "the file identifier TFL3 is missing at byte 4")
    try:
        return _Reader(data).graph()
    except _READ_ERRORS as error:
        raise MalformedModel("not a readable TensorFlow Lite model", f"its tables are damaged: {error}") from error


@dataclass
class _Reader:
    data: bytes

    def __post_init__(self) -> None:
        self.budget = 4 * len(self.data) + 4096
        self.model = tflite.Model.GetRootAs(self.data, 0)

    def graph(self) -> Graph:
        subgraphs = self.model.SubgraphsLength()
        if subgraphs == 0:
            raise MalformedModel("not a TensorFlow Lite model", "it has no subgraph")
        if subgraphs > 1:
            raise UnsupportedModel("the model has several subgraphs", f"{subgraphs} of them", "control flow cannot be proved")
        graph = self.model.Subgraphs(0)
        tensors = tuple(self.tensor(i, graph.Tensors(i)) for i in self.count("tensors", graph.TensorsLength()))
        operators = tuple(self.operator(i, graph.Operators(i), tensors) for i in self.count("operators", graph.OperatorsLength()))
        inputs, outputs = self.integers(graph, "Inputs"), self.integers(graph, "Outputs")
        for index in (*inputs, *outputs):
            if not 0 <= index < len(tensors):
                raise MalformedModel("the model's inputs or outputs are wrong", f"tensor {index} does not exist")
        return Graph(tensors, operators, inputs, outputs)

    def count(self, what: str, length: int) -> Iterator[int]:
        """Indices of a vector of tables, paid from the budget."""
        if length > MAX_OPERATORS:
            raise MalformedModel("the model is too large", f"{length} {what}")
        self.pay(what, 4 * length)
        return iter(range(length))

    def pay(self, what: str, size: int) -> None:
        self.budget -= size
        if self.budget < 0:
            raise MalformedModel("the file contradicts itself", f"its {what} are larger than the file")

    def integers(self, table: Any, field: str) -> tuple[int, ...]:
        """A vector of integers."""
        length = int(getattr(table, field + "Length")())
        if length == 0:
            return ()
        self.pay(field, 8 * length)
        return tuple(int(value) for value in getattr(table, field + "AsNumpy")())

    def name(self, raw: bytes | None, index: int) -> str:
        """A printable name of bounded length."""
        self.pay("names", len(raw or b""))
        text = (raw or b"")[:MAX_NAME].decode("utf-8", "ignore")
        return "".join(c if c.isprintable() else "?" for c in text) or f"tensor_{index}"

    def tensor(self, index: int, table: Any) -> TensorInfo:
        name, kind = self.name(table.Name(), index), int(table.Type())
        unread = TensorInfo(index, name, "", ())

        def unsupported(why: str) -> UnsupportedModel:
            op = self.user(unread)
            return op.unsupported(why, unread) if op else UnsupportedModel(f"tensor {index} ({name!r})", why, tensor=name)

        def malformed(why: str) -> MalformedModel:
            op = self.user(unread)
            return op.malformed(why, unread) if op else MalformedModel(f"tensor {index} ({name!r})", why, tensor=name)

        if kind not in TYPE_NAMES:
            raise malformed(f"unknown type {kind}")
        if table.IsVariable():
            raise unsupported("variable tensors keep state between runs, which a proof of one run cannot show")
        if table.Sparsity() is not None:
            raise unsupported("sparse tensors are not supported")
        dims = self.integers(table, "Shape")
        if any(dim < 0 for dim in dims):
            raise unsupported(f"its shape {list(dims)} is dynamic")
        if len(dims) > MAX_RANK:
            raise unsupported(f"it has {len(dims)} dimensions, more than {MAX_RANK}")
        dtype = DTYPES.get(kind, TYPE_NAMES[kind].lower())
        scales, zero_points, axis = self.quantization(table.Quantization(), malformed)
        data = self.constant(int(table.Buffer()), kind, dims, unsupported, malformed)
        if data is None and prod(dims) > MAX_ELEMENTS:
            raise unsupported(f"its shape {list(dims)} is larger than {MAX_ELEMENTS} elements")
        return TensorInfo(index, name, dtype, dims, scales, zero_points, axis, data)

    def quantization(self, table: Any, malformed: Callable[[str], MalformedModel]) -> tuple[tuple[float, ...], tuple[int, ...], int]:
        if table is None or table.ScaleLength() == 0:
            return (), (), 0
        if table.DetailsType() != tflite.QuantizationDetails.NONE:
            raise malformed("unknown kind of quantisation")
        self.pay("scales", 8 * int(table.ScaleLength()))
        scales = tuple(float(value) for value in table.ScaleAsNumpy())
        zero_points = self.integers(table, "ZeroPoint") or (0,) * len(scales)
        if len(zero_points) != len(scales):
            raise malformed(f"{len(scales)} scales but {len(zero_points)} zero points")
        if not all(isfinite(scale) and scale > 0 for scale in scales):
            raise malformed("a scale is not a positive number")
        return scales, zero_points, int(table.QuantizedDimension())

    def constant(
        self,
        buffer: int,
        kind: int,
        dims: tuple[int, ...],
        unsupported: Callable[[str], UnsupportedModel],
        malformed: Callable[[str], MalformedModel],
    ) -> NDArray[Any] | None:
        if not 0 <= buffer < self.model.BuffersLength():
            raise malformed(f"buffer {buffer} does not exist")
        table = self.model.Buffers(buffer)
        if table.Offset() > 1 or table.Size() > 1:
            raise unsupported("its data lies outside the model's tables")
        if table.DataLength() == 0:
            return None
        dtype = DTYPES.get(kind)
        if dtype is None:
            raise unsupported(f"constants of type {TYPE_NAMES[kind]} are not supported")
        raw: NDArray[np.uint8] = table.DataAsNumpy()
        if len(raw) != prod(dims) * np.dtype(dtype).itemsize:
            raise malformed(f"{len(raw)} bytes of data for {dtype} of shape {list(dims)}")
        array: NDArray[Any] = np.frombuffer(raw.tobytes() if not raw.flags.contiguous else raw, dtype).reshape(dims)
        array.flags.writeable = False
        return array

    def operator(self, index: int, table: Any, tensors: Sequence[TensorInfo]) -> Operator:
        inputs, outputs = self.integers(table, "Inputs"), self.integers(table, "Outputs")
        result = tensors[outputs[0]] if outputs and 0 <= outputs[0] < len(tensors) else None
        kind = self.kind(index, int(table.OpcodeIndex()), result)
        operator = Operator(index, kind, inputs, outputs, self.options(kind, table), result)
        if table.MutatingVariableInputsLength() or table.IntermediatesLength():
            raise operator.unsupported("it keeps state between runs")
        if any(not -1 <= i < len(tensors) for i in inputs) or any(not 0 <= i < len(tensors) for i in outputs):
            raise operator.malformed("it names a tensor that does not exist")
        return operator

    def kind(self, index: int, opcode: int, result: TensorInfo | None = None) -> str:
        if not 0 <= opcode < self.model.OperatorCodesLength():
            raise MalformedModel(f"operator {index}", f"operator code {opcode} does not exist", operator=index)
        code = self.model.OperatorCodes(opcode)
        number = max(int(code.BuiltinCode()), int(code.DeprecatedBuiltinCode()))
        if number == tflite.BuiltinOperator.CUSTOM:
            custom = self.name(code.CustomCode(), opcode)
            raise Operator(index, "CUSTOM", (), (), result=result).unsupported(f"the custom operator {custom!r} cannot be proved")
        return str(KINDS.get(number, f"operator code {number}"))

    def user(self, tensor: TensorInfo) -> Operator | None:
        """For errors: the operator that computes a tensor, else the first that reads it. Operators may be as wrong as the tensor is."""
        graph = self.model.Subgraphs(0)
        for field in ("Outputs", "Inputs"):
            for index in self.count("operators", graph.OperatorsLength()):
                table = graph.Operators(index)
                if tensor.index in self.integers(table, field):
                    return Operator(index, self.kind(index, int(table.OpcodeIndex()), tensor), (), ())
        return None

    def options(self, kind: str, table: Any) -> dict[str, Option]:
        if kind not in OPTIONS or table.BuiltinOptionsType() == tflite.BuiltinOptions.NONE:
            return {}
        name, fields = OPTIONS[kind]
        union = table.BuiltinOptions()
        if table.BuiltinOptionsType() != getattr(tflite.BuiltinOptions, name) or union is None:
            raise ValueError(f"{kind} has the options of another operator")
        options = getattr(tflite, name)()
        options.Init(union.Bytes, union.Pos)
        return {field: self.option(options, field) for field in fields}

    def option(self, options: Any, field: str) -> Option:
        if hasattr(options, field + "Length"):
            return self.integers(options, field)
        value = getattr(options, field)()
        return float(value) if isinstance(value, float) else int(value)
