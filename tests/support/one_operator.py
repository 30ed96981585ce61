"""Models of a single operator, with defaults, to vary one thing at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tflite_writer import ModelWriter

CONVOLUTION = {
    "padding": 1, "stride_w": 1, "stride_h": 1, "dilation_w_factor": 1, "dilation_h_factor": 1, "fused_activation_function": 0,
}  # fmt: skip
POOL = {"padding": 1, "stride_w": 1, "stride_h": 1, "filter_width": 2, "filter_height": 2, "fused_activation_function": 0}


@dataclass(frozen=True)
class Quantized:
    """A tensor's type and quantisation."""

    dtype: str = "int8"
    scale: float = 0.05
    zero: int = 0


def unary(kind: str, shape: Sequence[int], x: Quantized, out: Quantized, out_shape: Sequence[int] | None = None, **options: Any) -> bytes:
    """An operator with one input."""
    m = ModelWriter()
    index = m.input(x.dtype, shape, x.scale, x.zero, name="x")
    y = m.tensor(out.dtype, out_shape if out_shape is not None else shape, out.scale, out.zero, name="y")
    m.add(kind, [index], y, **options)
    return m.finish(y)


def with_constants(
    kind: str,
    shape: Sequence[int],
    x: Quantized,
    constants: Sequence[NDArray[Any]],
    out_shape: Sequence[int],
    out: Quantized | None = None,
    **options: Any,
) -> bytes:
    """An operator with constant operands; its output is quantised like its input unless told."""
    m = ModelWriter()
    index = m.input(x.dtype, shape, x.scale, x.zero, name="x")
    operands = [m.constant(np.asarray(constant)) for constant in constants]
    out = out or x
    y = m.tensor(out.dtype, out_shape, out.scale, out.zero, name="y")
    m.add(kind, [index, *operands], y, **options)
    return m.finish(y)


def binary(kind: str, shapes: Sequence[Sequence[int]], tensors: Sequence[Quantized], activation: int = 0) -> bytes:
    """ADD, SUB or MUL: `tensors` are both inputs and the output."""
    m = ModelWriter()
    a, b = (m.input(q.dtype, shape, q.scale, q.zero) for q, shape in zip(tensors[:2], shapes, strict=True))
    out = tensors[2]
    y = m.tensor(out.dtype, np.broadcast_shapes(*(tuple(s) for s in shapes)), out.scale, out.zero)
    m.add(kind, [a, b], y, fused_activation_function=activation)
    return m.finish(y)


def biased(
    kind: str, dtype: str, scales: tuple[float, float, float], biases: Sequence[int], activation: int = 0, per_channel: bool = False
) -> bytes:
    """FULLY_CONNECTED, CONV_2D or DEPTHWISE_CONV_2D with zero weights: the accumulators are the biases, whatever the input."""
    m = ModelWriter()
    zero, count = 128 if dtype == "uint8" else 0, len(biases)
    flat = kind == "FULLY_CONNECTED"
    x = m.input(dtype, [1, 1] if flat else [1, 1, 1, count if kind[0] == "D" else 1], scales[0], zero)
    shape = (count, 1) if flat else (1, 1, 1, count) if kind[0] == "D" else (count, 1, 1, 1)
    w = m.constant(np.full(shape, zero, dtype), [scales[1]] * (count if per_channel else 1), zero, axis=3 if kind[0] == "D" else 0)
    b = m.constant(np.array(biases, np.int32), scales[0] * scales[1])
    y = m.tensor(dtype, [1, count] if flat else [1, 1, 1, count], scales[2], zero)
    options: dict[str, Any] = {"keep_num_dims": False} if flat else {**CONVOLUTION} | ({"depth_multiplier": 1} if kind[0] == "D" else {})
    m.add(kind, [x, w, b], y, **options | {"fused_activation_function": activation})
    return m.finish(y)
