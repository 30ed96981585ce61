"""Writes small .tflite files, operator by operator: for the demo model and for tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

DTYPES = {
    "int8": tflite.TensorType.INT8,
    "uint8": tflite.TensorType.UINT8,
    "int16": tflite.TensorType.INT16,
    "int32": tflite.TensorType.INT32,
    "int64": tflite.TensorType.INT64,
    "float32": tflite.TensorType.FLOAT32,
    "bool": tflite.TensorType.BOOL,
    "int4": tflite.TensorType.INT4,
}

OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PACK": "PackOptions",
    "REDUCE_PROD": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "SHAPE": "ShapeOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SQUEEZE": "SqueezeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
}
"""Operators whose table of options is written; the others have none."""


@dataclass
class TensorSpec:
    """A tensor: per-tensor quantisation is a list of one scale."""

    name: str
    dtype: str
    shape: Sequence[int]
    scales: Sequence[float] = ()
    zero_points: Sequence[int] = ()
    axis: int = 0
    data: NDArray[Any] | bytes | None = None
    variable: bool = False
    sparse: bool = False
    signature: Sequence[int] | None = None


@dataclass
class OperatorSpec:
    """An operator; `options` are the schema's field names, in snake case."""

    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ModelWriter:
    """Collects tensors and operators of one subgraph."""

    tensors: list[TensorSpec] = field(default_factory=list)
    operators: list[OperatorSpec] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    description: str = "test"

    def tensor(
        self, dtype: str, shape: Sequence[int], scale: float | Sequence[float] | None = None, zero: int | Sequence[int] = 0, **more: Any
    ) -> int:
        """Adds a tensor and returns its index."""
        scales = [] if scale is None else [scale] if isinstance(scale, (int, float)) else list(scale)
        zeros = [zero] * len(scales) if isinstance(zero, (int, np.integer)) else list(zero)
        name = more.pop("name", f"t{len(self.tensors)}")
        self.tensors.append(TensorSpec(name, dtype, list(shape), scales, zeros, **more))
        return len(self.tensors) - 1

    def constant(
        self, array: NDArray[Any], scale: float | Sequence[float] | None = None, zero: int | Sequence[int] = 0, **more: Any
    ) -> int:
        """Adds a constant tensor."""
        return self.tensor(str(array.dtype), array.shape, scale, zero, data=array, **more)

    def input(self, dtype: str, shape: Sequence[int], scale: float | None = None, zero: int = 0, **more: Any) -> int:
        """Adds a tensor that is an input of the model."""
        index = self.tensor(dtype, shape, scale, zero, **more)
        self.inputs.append(index)
        return index

    def add(self, kind: str, inputs: Sequence[int], output: int, **options: Any) -> int:
        """Adds an operator with one output and returns that tensor."""
        self.operators.append(OperatorSpec(kind, list(inputs), [output], options))
        return output

    def finish(self, *outputs: int, subgraphs: int = 1) -> bytes:
        """The file's bytes."""
        self.outputs = list(outputs) or self.outputs
        return _Encoder(self, subgraphs).encode()


class _Encoder:
    def __init__(self, model: ModelWriter, subgraphs: int) -> None:
        self.model = model
        self.subgraphs = subgraphs
        self.b = flatbuffers.Builder(1024)

    def encode(self) -> bytes:
        b, model = self.b, self.model
        buffers = [self._buffer(None)]
        tensors = []
        for spec in model.tensors:
            index = 0
            if spec.data is not None:
                buffers.append(self._buffer(spec.data))
                index = len(buffers) - 1
            tensors.append(self._tensor(spec, index))
        kinds = sorted({op.kind for op in model.operators})
        codes = [self._code(kind) for kind in kinds]
        # An operator that is listed several times is written once: tables of a flatbuffer may be shared.
        written = {id(op): self._operator(op, kinds.index(op.kind)) for op in {id(op): op for op in model.operators}.values()}
        operators = [written[id(op)] for op in model.operators]
        tensors_at, inputs, outputs = self._offsets(tensors), self._ints(model.inputs), self._ints(model.outputs)
        operators_at = self._offsets(operators)
        graphs = []
        for _ in range(self.subgraphs):
            tflite.SubGraphStart(b)
            tflite.SubGraphAddTensors(b, tensors_at)
            tflite.SubGraphAddInputs(b, inputs)
            tflite.SubGraphAddOutputs(b, outputs)
            tflite.SubGraphAddOperators(b, operators_at)
            graphs.append(tflite.SubGraphEnd(b))
        graphs_at, codes_at, buffers_at, text = (
            self._offsets(graphs),
            self._offsets(codes),
            self._offsets(buffers),
            b.CreateString(model.description),
        )
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, codes_at)
        tflite.ModelAddSubgraphs(b, graphs_at)
        tflite.ModelAddDescription(b, text)
        tflite.ModelAddBuffers(b, buffers_at)
        b.Finish(tflite.ModelEnd(b), file_identifier=b"TFL3")
        return bytes(b.Output())

    def _ints(self, values: Sequence[int]) -> int:
        return int(self.b.CreateNumpyVector(np.asarray(values, np.int32)))

    def _offsets(self, values: Sequence[int]) -> int:
        self.b.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.b.PrependUOffsetTRelative(value)
        return int(self.b.EndVector())

    def _buffer(self, data: NDArray[Any] | bytes | None) -> int:
        at = None
        if data is not None:
            raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
            self.b.StartVector(1, len(raw), 16)
            self.b.head -= len(raw)
            self.b.Bytes[self.b.head : self.b.head + len(raw)] = raw
            at = self.b.EndVector()
        tflite.BufferStart(self.b)
        if at is not None:
            tflite.BufferAddData(self.b, at)
        return int(tflite.BufferEnd(self.b))

    def _tensor(self, spec: TensorSpec, buffer: int) -> int:
        b = self.b
        name, shape = b.CreateString(spec.name), self._ints(spec.shape)
        signature = None if spec.signature is None else self._ints(spec.signature)
        quantization = None
        if spec.scales:
            scales = b.CreateNumpyVector(np.asarray(spec.scales, np.float32))
            zeros = b.CreateNumpyVector(np.asarray(spec.zero_points, np.int64))
            tflite.QuantizationParametersStart(b)
            tflite.QuantizationParametersAddScale(b, scales)
            tflite.QuantizationParametersAddZeroPoint(b, zeros)
            tflite.QuantizationParametersAddQuantizedDimension(b, spec.axis)
            quantization = tflite.QuantizationParametersEnd(b)
        sparsity = None
        if spec.sparse:
            tflite.SparsityParametersStart(b)
            sparsity = tflite.SparsityParametersEnd(b)
        tflite.TensorStart(b)
        tflite.TensorAddShape(b, shape)
        tflite.TensorAddType(b, DTYPES[spec.dtype])
        tflite.TensorAddBuffer(b, buffer)
        tflite.TensorAddName(b, name)
        tflite.TensorAddIsVariable(b, spec.variable)
        if quantization is not None:
            tflite.TensorAddQuantization(b, quantization)
        if sparsity is not None:
            tflite.TensorAddSparsity(b, sparsity)
        if signature is not None:
            tflite.TensorAddShapeSignature(b, signature)
        return int(tflite.TensorEnd(b))

    def _code(self, kind: str) -> int:
        code = getattr(tflite.BuiltinOperator, kind)
        custom = self.b.CreateString("my_custom") if kind == "CUSTOM" else None
        tflite.OperatorCodeStart(self.b)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(self.b, min(code, 127))
        tflite.OperatorCodeAddBuiltinCode(self.b, code)
        tflite.OperatorCodeAddVersion(self.b, 1)
        if custom is not None:
            tflite.OperatorCodeAddCustomCode(self.b, custom)
        return int(tflite.OperatorCodeEnd(self.b))

    def _operator(self, op: OperatorSpec, code: int) -> int:
        b = self.b
        inputs, outputs, table = self._ints(op.inputs), self._ints(op.outputs), OPTIONS.get(op.kind)
        options = None
        if table is not None:
            values = {name: self._ints(value) if isinstance(value, (list, tuple)) else value for name, value in op.options.items()}
            getattr(tflite, table + "Start")(b)
            for name, value in values.items():
                add = "".join(part.capitalize() for part in name.split("_"))
                getattr(tflite, f"{table}Add{add}")(b, value)
            options = getattr(tflite, table + "End")(b)
        tflite.OperatorStart(b)
        tflite.OperatorAddOpcodeIndex(b, code)
        tflite.OperatorAddInputs(b, inputs)
        tflite.OperatorAddOutputs(b, outputs)
        if table is not None:
            tflite.OperatorAddBuiltinOptionsType(b, getattr(tflite.BuiltinOptions, table))
            tflite.OperatorAddBuiltinOptions(b, options)
        return int(tflite.OperatorEnd(b))
