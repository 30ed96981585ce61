"""CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED."""

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nexus_edge.proofs.importers.graph import Operator, TensorInfo
from nexus_edge.proofs.importers.lowering import Lowering, Padded, Value, require_int32
from nexus_edge.proofs.importers.operators.padding import PaddedInput, padded_input
from nexus_edge.proofs.importers.quantization import (
    INT32,
    Multiplier,
    Quantization,
    activation_range,
    is_float_rounding,
    quantize_multiplier,
    rescale_once,
)
from nexus_edge.proofs.importers.shapes import SAME, VALID, Dims, Window, positions, sliding

MAX_STEP = 1 << 15
"""Strides, dilations and kernel sizes; larger ones cannot touch a tensor that is small enough."""


def clamp(op: Operator, q: Quantization) -> tuple[int, int]:
    """The clamp of an operator's fused activation."""
    found = activation_range(op.integer("FusedActivationFunction"), q)
    if found is None:
        raise op.unsupported("its fused activation is none of NONE, RELU, RELU6, RELU_N1_TO_1")
    return found


def window(
    op: Operator, images: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> Window:
    """The window of a convolution or pool over `images`: batch, height and width."""
    batch, *size = images
    if not all(1 <= step <= MAX_STEP for step in (*kernel, *stride, *dilation)):
        raise op.malformed(f"kernel {kernel}, stride {stride} or dilation {dilation} is not in 1..{MAX_STEP}")
    padding = op.integer("Padding")
    if padding not in (SAME, VALID):
        raise op.malformed(f"unknown padding {padding}")
    outputs, pads = zip(*(sliding(size[i], kernel[i], stride[i], dilation[i], padding) for i in (0, 1)), strict=True)
    if 0 in outputs:
        raise op.malformed(f"the kernel {kernel} does not fit into the input {(size[0], size[1])}")
    return Window((size[0], size[1]), (outputs[0], outputs[1]), kernel, stride, (pads[0], pads[1]), dilation, batch)


def image(op: Operator, x: Value | Padded) -> tuple[int, int, int]:
    """Batch, height and width of an input of shape `(batch, height, width, channels)`."""
    if len(x.dims) != 4:
        raise op.malformed(f"its input has shape {list(x.dims)} instead of four dimensions", x.info)
    return x.dims[0], x.dims[1], x.dims[2]


def lower_convolution(lowering: Lowering, op: Operator) -> None:
    """CONV_2D and DEPTHWISE_CONV_2D."""
    depthwise = op.kind == "DEPTHWISE_CONV_2D"
    info = lowering.output(op)
    weights = lowering.constant(op, 1, "int8", "uint8")
    filter_info = lowering.graph.tensors[op.inputs[1]]
    if weights.ndim != 4 or 0 in weights.shape or (depthwise and weights.shape[0] != 1):
        raise op.malformed(f"its weights have shape {list(weights.shape)}", filter_info)
    kernel = (weights.shape[1], weights.shape[2])
    stride, dilation = (op.integer("StrideH"), op.integer("StrideW")), (op.integer("DilationHFactor", 1), op.integer("DilationWFactor", 1))
    found = lowering.get(op, 0)
    x = found if isinstance(found, Padded) else lowering.value(op, 0)
    images, channels = image(op, x), x.dims[3]
    if depthwise:
        if weights.shape[3] % channels or op.integer("DepthMultiplier") != weights.shape[3] // channels:
            raise op.malformed(f"{weights.shape[3]} weights' channels do not fit {channels} input channels", filter_info)
    elif weights.shape[3] != channels:
        raise op.unsupported(f"its weights have {weights.shape[3]} input channels, its input {channels}: grouped convolutions", filter_info)
    geometry = window(op, images, kernel, stride, dilation)
    source = padded_input(lowering, op, geometry)
    dims = (geometry.batch, *geometry.output, weights.shape[3] if depthwise else weights.shape[0])
    out = lowering.define(op, info, lowering.declared(op, info, dims))
    _contract(lowering, op, source, out, weights[0] if depthwise else weights, filter_info, depthwise)
    lowering.bind(op, out)


def lower_fully_connected(lowering: Lowering, op: Operator) -> None:
    """FULLY_CONNECTED: a window over each whole image if they were flattened, else one position for each row."""
    x, info = lowering.value(op, 0), lowering.output(op)
    weights = lowering.constant(op, 1, "int8", "uint8")
    filter_info = lowering.graph.tensors[op.inputs[1]]
    if weights.ndim != 2 or 0 in weights.shape:
        raise op.malformed(f"its weights have shape {list(weights.shape)}", filter_info)
    if op.integer("WeightsFormat") != 0:
        raise op.unsupported("shuffled weights are not supported", filter_info)
    outputs, depth = weights.shape
    if prod(x.dims) % depth:
        raise op.malformed(f"its input of shape {list(x.dims)} has no rows of {depth} elements", x.info)
    rows = prod(x.dims) // depth
    if lowering.semantics == "tflite-2.14" and len(filter_info.scales) > 1 and len(info.dims) != 2:
        raise op.unsupported("its kernel for weights with a scale for each channel reads only outputs of two dimensions right", filter_info)
    out = lowering.define(op, info, lowering.declared(op, info, _fully_connected_dims(op, x, info, rows, depth, outputs)))
    source = _rows(lowering, op, x, rows, depth)
    _contract(lowering, op, source, out, weights.reshape(outputs, *source.window.kernel, -1), filter_info, False)
    lowering.bind(op, out)


def _fully_connected_dims(op: Operator, x: Value, info: TensorInfo, rows: int, depth: int, outputs: int) -> Dims:
    """The output's shape; whether leading ones are kept is the converter's choice, only the number of rows matters."""
    if op.integer("KeepNumDims"):
        if x.dims[-1] != depth:
            raise op.malformed(f"its input's rows have {x.dims[-1]} elements, its weights' {depth}", x.info)
        return (*x.dims[:-1], outputs)
    fits = bool(info.dims) and info.dims[-1] == outputs and prod(info.dims) == rows * outputs
    return info.dims if fits else (rows, outputs)


def _rows(lowering: Lowering, op: Operator, x: Value, rows: int, depth: int) -> PaddedInput:
    """The input as rows of `depth` elements; flattened rows are windows over the tensor as it was before."""
    if x.stored[-1] != depth and depth % x.stored[-1] == 0:
        size = (x.stored[1], x.stored[2]) if len(x.stored) == 4 and x.stored[0] == rows else (positions(x.stored) // rows, 1)
        return PaddedInput(replace(x, dims=(rows, *size, x.stored[-1])), Window(size, (1, 1), size, batch=rows))
    source = x if x.rows == (rows, depth) else lowering.as_shape(op, x, (rows, depth))
    return PaddedInput(source, Window((rows, 1), (rows, 1), (1, 1)))


def _contract(
    lowering: Lowering, op: Operator, source: PaddedInput, out: Value, weights: NDArray[Any], filter_info: TensorInfo, depthwise: bool
) -> None:
    x, q_x, q_out = source.value, lowering.quantization(op, source.value.info), lowering.quantization(op, out.info)
    if q_x.dtype != q_out.dtype or filter_info.dtype != q_x.dtype:
        raise op.unsupported(f"types {q_x.dtype}, {filter_info.dtype} and {q_out.dtype} differ", filter_info)
    channels = weights.shape[-1] if depthwise else weights.shape[0]
    lowering.count_rules(op, channels)
    multipliers = _multipliers(lowering, op, q_x, filter_info, q_out, channels, weights.ndim - 1 if depthwise else 0)
    zero = _weight_zero(lowering, op, filter_info)
    bias = lowering.optional(op, 2, "int32")
    if bias is not None and bias.shape != (channels,):
        raise op.malformed(f"its biases have shape {list(bias.shape)} instead of [{channels}]", lowering.graph.tensors[op.inputs[2]])
    centred = weights.astype(np.int32) - zero
    _check_accumulators(op, centred, bias, q_x, multipliers, depthwise)
    lowering.builder.conv(
        op.label,
        lowering.as_rows(op, x).id,
        out.id,
        source.window.native,
        np.ascontiguousarray(centred),
        None if bias is None else np.ascontiguousarray(bias),
        q_x.zero_point,
        multipliers,
        clamp(op, q_out),
        depthwise,
        single_rounding=_rounds_once(lowering, op),
    )


def _weight_zero(lowering: Lowering, op: Operator, info: TensorInfo) -> int:
    """The weights' zero point: legacy uint8 has one; the int8 kernels ignore it."""
    zeros = set(info.zero_points)
    if info.dtype == "int8" and zeros != {0}:
        raise op.unsupported("int8 weights have a zero point other than 0, which the runtimes ignore", info)
    if lowering.private and info.dtype != "int8":
        raise op.unsupported("weights of a private model must be int8 with zero point 0", info, "quantise the model to int8")
    zero = info.zero_points[0]
    if not 0 <= zero <= 255 and info.dtype == "uint8":
        raise op.malformed(f"its zero point {zero} is no uint8", info)
    return zero


def _rounds_once(lowering: Lowering, op: Operator) -> bool:
    return lowering.semantics == "litert-2.3-ref" and op.kind == "FULLY_CONNECTED"


def _multipliers(
    lowering: Lowering, op: Operator, x: Quantization, weights: TensorInfo, out: Quantization, channels: int, axis: int
) -> list[Multiplier]:
    """One multiplier for each output channel.

    The product of the scales is a double, but a float32 where the kernel takes one multiplier for all channels: in FULLY_CONNECTED with one
    scale (until LiteRT), and in legacy uint8 convolutions. Only crafted accumulators tell them apart.
    """
    scales = weights.scales
    if len(scales) not in (1, channels):
        raise op.malformed(f"{len(scales)} scales for {channels} channels", weights)
    if len(scales) > 1 and weights.dtype == "uint8":
        raise op.unsupported("uint8 weights have one scale for each channel, which no runtime supports", weights)
    if len(scales) > 1 and weights.axis != (3 if axis else 0):
        raise op.unsupported(f"its scales go along dimension {weights.axis}", weights)
    single = len(scales) == 1 and (op.kind == "FULLY_CONNECTED" or x.dtype == "uint8")
    if single:
        _check_bias_scale(lowering, op, x, scales[0], out)
    in_float32 = single and lowering.semantics != "tflm" and not _rounds_once(lowering, op)
    result = []
    for scale in scales:
        product = float(np.float32(x.scale) * np.float32(scale)) if in_float32 else x.scale * scale
        real = product / out.scale
        result.append(_float_multiplier(op, real, weights, out) if _rounds_once(lowering, op) else quantize_multiplier(real))
    return result * (channels if len(scales) == 1 else 1)


def _float_multiplier(op: Operator, real: float, weights: TensorInfo, out: Quantization) -> Multiplier:
    """A multiplier whose single rounding is exactly LiteRT's FULLY_CONNECTED, `round(acc * real)` in doubles with ties away from zero.

    That of QuantizeMultiplier, or a neighbour: a slightly larger one sends negative ties away from zero.
    """
    m, e = quantize_multiplier(real)
    values = (out.range[0] - out.zero_point, out.range[1] - out.zero_point)
    for step in (0, 1, -1, 2, -2):
        near = (m + step, e)
        if (near[0] == 0 or 1 << 30 <= near[0] < 1 << 31) and is_float_rounding(rescale_once, near, real, values):
            return near
    raise op.unsupported("LiteRT computes it in floating point, and no integer multiplier gives the same for these scales", weights)


def _check_bias_scale(lowering: Lowering, op: Operator, x: Quantization, scale: float, out: Quantization) -> None:
    """The runtimes refuse biases whose scale is far from the product of the others, where they look at one scale."""
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        info = lowering.graph.tensors[op.inputs[2]]
        bias_scale = info.scales[0] if info.scales else 0.0
        if not abs(x.scale * scale - bias_scale) / out.scale <= 0.02:
            raise op.unsupported("the scale of its biases is not the product of the input's and the weights'", info)


def _check_accumulators(
    op: Operator, weights: NDArray[np.int32], bias: NDArray[Any] | None, x: Quantization, multipliers: list[Multiplier], depthwise: bool
) -> None:
    """No accumulator may leave int32, before or after the left shift of a multiplier above 1."""
    low, high = x.range[0] - x.zero_point, x.range[1] - x.zero_point
    table = weights.reshape(-1, weights.shape[-1]).T if depthwise else weights.reshape(weights.shape[0], -1)
    positive = np.maximum(table, 0).sum(1, dtype=np.int64)
    negative = np.minimum(table, 0).sum(1, dtype=np.int64)
    offset = np.zeros(len(table), np.int64) if bias is None else bias.astype(np.int64)
    # The kernels add the bias last: sums without it must fit, too.
    ends = [positive * high + negative * low, positive * low + negative * high]
    require_int32(op, "its accumulator", int(ends[1].min()), int(ends[0].max()))
    shifts = np.array([min(max(-e, 0), 40) for _, e in multipliers], np.int64)
    if any(e < -30 for _, e in multipliers):
        raise op.unsupported("its scales make a multiplier above 2^30")
    room = np.int64(INT32[1]) >> shifts
    if np.any(ends[0] + offset > room) or np.any(ends[1] + offset < -room):
        raise op.unsupported("its accumulator can leave int32, where the reference kernels overflow")
