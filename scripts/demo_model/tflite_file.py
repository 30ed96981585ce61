"""Write the quantised network as a `.tflite` flatbuffer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

from demo_model.network import CLASSES, STRIDES
from demo_model.quantisation import Layer, Quantised, Scale

Integers = NDArray[np.int8] | NDArray[np.int32]
_TYPES = {np.dtype(np.int8): tflite.TensorType.INT8, np.dtype(np.int32): tflite.TensorType.INT32}


def encode(network: Quantised) -> bytes:
    """The file: conv, conv, reshape, fully connected, softmax."""
    file = _File()
    image = file.tensor("image", (1, 8, 8, 1), network.image)
    hidden1 = file.tensor("hidden1", (1, 8, 8, 8), network.conv1.output)
    hidden2 = file.tensor("hidden2", (1, 4, 4, 16), network.conv2.output)
    flat = file.tensor("flat", (1, 256), network.conv2.output)
    logits = file.tensor("logits", (1, CLASSES), network.dense.output)
    probabilities = file.tensor("probabilities", (1, CLASSES), network.probabilities)
    shape = file.constant("shape", np.array([1, 256], np.int32))

    conv1, conv2 = file.weights("conv1", network.conv1), file.weights("conv2", network.conv2)
    dense = file.weights("dense", network.dense)
    file.convolution([image, *conv1], hidden1, STRIDES[0])
    file.convolution([hidden1, *conv2], hidden2, STRIDES[1])
    file.reshape([hidden2, shape], flat, (1, 256))
    file.fully_connected([flat, *dense], logits)
    file.softmax([logits], probabilities)
    return file.finish(inputs=[image], outputs=[probabilities])


@dataclass
class _File:
    """A flatbuffer in the making: children are written before what refers to them."""

    builder: flatbuffers.Builder = field(default_factory=lambda: flatbuffers.Builder(1 << 16))
    buffers: list[bytes] = field(default_factory=lambda: [b""])  # buffer 0 is empty by definition
    tensors: list[int] = field(default_factory=list)
    operators: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def tensor(self, name: str, shape: Sequence[int], scale: Scale) -> int:
        """An activation."""
        return self._tensor(name, shape, np.dtype(np.int8), 0, scale)

    def constant(self, name: str, values: Integers, scale: Scale | None = None) -> int:
        """A tensor whose values are in the file."""
        self.buffers.append(values.astype(values.dtype.newbyteorder("<")).tobytes())
        return self._tensor(name, values.shape, values.dtype, len(self.buffers) - 1, scale)

    def weights(self, name: str, layer: Layer) -> tuple[int, int]:
        """Weights and biases of a layer."""
        return self.constant(f"{name}/weights", layer.weights, layer.weight_scale), self.constant(
            f"{name}/bias", layer.bias, layer.bias_scale
        )

    def convolution(self, inputs: Sequence[int], output: int, stride: int) -> None:
        """CONV_2D, SAME, ReLU."""

        def options() -> int:
            tflite.Conv2DOptionsStart(self.builder)
            tflite.Conv2DOptionsAddPadding(self.builder, tflite.Padding.SAME)
            tflite.Conv2DOptionsAddStrideW(self.builder, stride)
            tflite.Conv2DOptionsAddStrideH(self.builder, stride)
            tflite.Conv2DOptionsAddFusedActivationFunction(self.builder, tflite.ActivationFunctionType.RELU)
            return int(tflite.Conv2DOptionsEnd(self.builder))

        self._operator(tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOptions.Conv2DOptions, options, inputs, output)

    def reshape(self, inputs: Sequence[int], output: int, shape: Sequence[int]) -> None:
        """RESHAPE."""
        new_shape = self._integers(shape, tflite.ReshapeOptionsStartNewShapeVector)

        def options() -> int:
            tflite.ReshapeOptionsStart(self.builder)
            tflite.ReshapeOptionsAddNewShape(self.builder, new_shape)
            return int(tflite.ReshapeOptionsEnd(self.builder))

        self._operator(tflite.BuiltinOperator.RESHAPE, tflite.BuiltinOptions.ReshapeOptions, options, inputs, output)

    def fully_connected(self, inputs: Sequence[int], output: int) -> None:
        """FULLY_CONNECTED."""

        def options() -> int:
            tflite.FullyConnectedOptionsStart(self.builder)
            return int(tflite.FullyConnectedOptionsEnd(self.builder))

        self._operator(tflite.BuiltinOperator.FULLY_CONNECTED, tflite.BuiltinOptions.FullyConnectedOptions, options, inputs, output)

    def softmax(self, inputs: Sequence[int], output: int) -> None:
        """SOFTMAX with beta 1."""

        def options() -> int:
            tflite.SoftmaxOptionsStart(self.builder)
            tflite.SoftmaxOptionsAddBeta(self.builder, 1.0)
            return int(tflite.SoftmaxOptionsEnd(self.builder))

        self._operator(tflite.BuiltinOperator.SOFTMAX, tflite.BuiltinOptions.SoftmaxOptions, options, inputs, output)

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The whole file with its one subgraph."""
        builder = self.builder
        input_vector = self._integers(inputs, tflite.SubGraphStartInputsVector)
        output_vector = self._integers(outputs, tflite.SubGraphStartOutputsVector)
        tensors = self._offsets(self.tensors, tflite.SubGraphStartTensorsVector)
        operators = self._offsets(self.operators, tflite.SubGraphStartOperatorsVector)
        name = builder.CreateString("main")
        tflite.SubGraphStart(builder)
        tflite.SubGraphAddTensors(builder, tensors)
        tflite.SubGraphAddInputs(builder, input_vector)
        tflite.SubGraphAddOutputs(builder, output_vector)
        tflite.SubGraphAddOperators(builder, operators)
        tflite.SubGraphAddName(builder, name)
        subgraph = tflite.SubGraphEnd(builder)
        subgraphs = self._offsets([subgraph], tflite.ModelStartSubgraphsVector)
        codes = self._offsets([self._code(code) for code in self.codes], tflite.ModelStartOperatorCodesVector)
        buffers = self._offsets([self._buffer(data) for data in self.buffers], tflite.ModelStartBuffersVector)
        description = builder.CreateString("nexus-edge digits")
        tflite.ModelStart(builder)
        tflite.ModelAddVersion(builder, 3)
        tflite.ModelAddOperatorCodes(builder, codes)
        tflite.ModelAddSubgraphs(builder, subgraphs)
        tflite.ModelAddDescription(builder, description)
        tflite.ModelAddBuffers(builder, buffers)
        builder.Finish(tflite.ModelEnd(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(
        self, name: str, shape: Sequence[int], dtype: np.dtype[np.int8] | np.dtype[np.int32], buffer: int, scale: Scale | None
    ) -> int:
        builder = self.builder
        name_at = builder.CreateString(name)
        shape_at = self._integers(shape, tflite.TensorStartShapeVector)
        quantization = None if scale is None else self._quantization(scale)
        tflite.TensorStart(builder)
        tflite.TensorAddShape(builder, shape_at)
        tflite.TensorAddType(builder, _TYPES[np.dtype(dtype)])
        tflite.TensorAddBuffer(builder, buffer)
        tflite.TensorAddName(builder, name_at)
        if quantization is not None:
            tflite.TensorAddQuantization(builder, quantization)
        self.tensors.append(tflite.TensorEnd(builder))
        return len(self.tensors) - 1

    def _quantization(self, scale: Scale) -> int:
        builder = self.builder
        scales = builder.CreateNumpyVector(scale.scale)
        zero_points = builder.CreateNumpyVector(np.full(len(scale.scale), scale.zero_point, np.int64))
        tflite.QuantizationParametersStart(builder)
        tflite.QuantizationParametersAddScale(builder, scales)
        tflite.QuantizationParametersAddZeroPoint(builder, zero_points)
        return int(tflite.QuantizationParametersEnd(builder))

    def _operator(self, code: int, options_type: int, options: Callable[[], int], inputs: Sequence[int], output: int) -> None:
        builder = self.builder
        if code not in self.codes:
            self.codes.append(code)
        options_at = options()
        input_vector = self._integers(inputs, tflite.OperatorStartInputsVector)
        output_vector = self._integers([output], tflite.OperatorStartOutputsVector)
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, self.codes.index(code))
        tflite.OperatorAddInputs(builder, input_vector)
        tflite.OperatorAddOutputs(builder, output_vector)
        tflite.OperatorAddBuiltinOptionsType(builder, options_type)
        tflite.OperatorAddBuiltinOptions(builder, options_at)
        self.operators.append(tflite.OperatorEnd(builder))

    def _code(self, code: int) -> int:
        tflite.OperatorCodeStart(self.builder)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(self.builder, code)
        tflite.OperatorCodeAddBuiltinCode(self.builder, code)
        tflite.OperatorCodeAddVersion(self.builder, 3)  # the int8 versions of these operators
        return int(tflite.OperatorCodeEnd(self.builder))

    def _buffer(self, data: bytes) -> int:
        """Weights are aligned to 16 bytes, as the schema demands."""
        vector = None
        if data:
            self.builder.StartVector(1, len(data), 16)
            self.builder.head -= len(data)
            self.builder.Bytes[self.builder.Head() : self.builder.Head() + len(data)] = data
            vector = self.builder.EndVector()
        tflite.BufferStart(self.builder)
        if vector is not None:
            tflite.BufferAddData(self.builder, vector)
        return int(tflite.BufferEnd(self.builder))

    def _integers(self, values: Sequence[int], start: Callable[[flatbuffers.Builder, int], int]) -> int:
        start(self.builder, len(values))
        for value in reversed(values):
            self.builder.PrependInt32(value)
        return int(self.builder.EndVector())

    def _offsets(self, offsets: Sequence[int], start: Callable[[flatbuffers.Builder, int], int]) -> int:
        start(self.builder, len(offsets))
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())
