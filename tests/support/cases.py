"""Random small models, operator by operator, with inputs that reach the ends of every range."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from tflite_writer import ModelWriter

RUNS = 8
LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}
Generator = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A model file and stacked inputs."""

    model: bytes
    inputs: list[NDArray[Any]]


def ints(values: Any) -> NDArray[np.int32]:
    """A constant of shapes and indices."""
    return np.array(values, np.int32)


def scale(rng: Generator, low: float = 1e-3, high: float = 1.0) -> float:
    """A scale, uniform in its logarithm; sometimes a power of two."""
    value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(np.float32(value)) if rng.random() < 0.8 else 2.0 ** round(np.log2(value))


def zero(rng: Generator, dtype: str) -> int:
    """A zero point, often at an end of the range."""
    low, high = LIMITS[dtype]
    return int(rng.choice([low, high, (low + high + 1) // 2, int(rng.integers(low, high + 1))]))


def array(rng: Generator, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    low, high = LIMITS[dtype]
    return rng.integers(low, high + 1, shape).astype(dtype)


def inputs(rng: Generator, dtype: str, shape: tuple[int, ...], runs: int = RUNS) -> NDArray[Any]:
    """Uniform, narrow, all-min and all-max inputs."""
    low, high = LIMITS[dtype]
    rows = array(rng, dtype, (runs, *shape))
    rows[0], rows[1] = low, high
    rows[2] = np.clip(rng.normal((low + high) / 2, 12, shape), low, high).astype(dtype)
    return rows


def fused(rng: Generator) -> int:
    return int(rng.choice([0, 0, 1, 2, 3]))


def weights(
    rng: Generator, m: ModelWriter, dtype: str, shape: tuple[int, ...], axis: int, one_scale: bool = False
) -> tuple[int, NDArray[np.float64], int]:
    """A weight tensor with its scales and zero point: per channel at random for int8, one with a zero point for uint8."""
    channels, per_channel = shape[axis], dtype == "int8" and not one_scale and rng.random() < 0.7
    scales = [scale(rng, 1e-3, 0.1) for _ in range(channels if per_channel else 1)]
    zero_point = 0 if dtype == "int8" else zero(rng, dtype)
    index = m.constant(array(rng, dtype, shape), scales, zero_point, axis=axis)
    return index, np.array(scales, np.float32).astype(np.float64), zero_point


def bias(rng: Generator, m: ModelWriter, channels: int, scales: NDArray[np.float64], size: float, optional: bool = True) -> int:
    """Biases of about the accumulators' size, or none where all runtimes allow that."""
    if optional and rng.random() < 0.2:
        return -1
    values = rng.normal(0, size, channels).round().astype(np.int32)
    return m.constant(values, [float(s) for s in scales])


def convolution(rng: Generator, dtype: str, batch: int = 1) -> Case:
    m = ModelWriter()
    h, w, c, o = (int(v) for v in rng.integers(1, [9, 9, 6, 7]))
    kernel, stride, dilation = rng.integers(1, 4, 2), rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    padding = int(rng.integers(0, 2)) if all((kernel - 1) * dilation < (h, w)) else 0
    s_in, z_in = scale(rng), zero(rng, dtype)
    x = m.input(dtype, [batch, h, w, c], s_in, z_in)
    f, scales, _ = weights(rng, m, dtype, (o, int(kernel[0]), int(kernel[1]), c), 0)
    spread = 75 * 75 * np.sqrt(kernel.prod() * c)
    b = bias(rng, m, o, np.float32(s_in) * scales, spread, optional=False)
    out = _windowed_output(rng, m, dtype, (batch, h, w), o, kernel, stride, dilation, padding, s_in * scales.max() * spread)
    m.add("CONV_2D", [x, f, b], out, padding=padding, stride_w=int(stride[1]), stride_h=int(stride[0]),
          dilation_w_factor=int(dilation[1]), dilation_h_factor=int(dilation[0]), fused_activation_function=fused(rng))  # fmt: skip
    return Case(m.finish(out), [inputs(rng, dtype, (batch, h, w, c))])


def depthwise(rng: Generator, dtype: str, batch: int = 1) -> Case:
    m = ModelWriter()
    h, w, c, multiplier = (int(v) for v in rng.integers(1, [9, 9, 6, 4]))
    kernel, stride, dilation = rng.integers(1, 4, 2), rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    padding = int(rng.integers(0, 2)) if all((kernel - 1) * dilation < (h, w)) else 0
    s_in, z_in = scale(rng), zero(rng, dtype)
    x = m.input(dtype, [batch, h, w, c], s_in, z_in)
    f, scales, _ = weights(rng, m, dtype, (1, int(kernel[0]), int(kernel[1]), c * multiplier), 3)
    spread = 75 * 75 * np.sqrt(kernel.prod())
    b = bias(rng, m, c * multiplier, np.float32(s_in) * scales, spread)
    out = _windowed_output(rng, m, dtype, (batch, h, w), c * multiplier, kernel, stride, dilation, padding, s_in * scales.max() * spread)
    m.add("DEPTHWISE_CONV_2D", [x, f, b] if b >= 0 else [x, f], out, padding=padding, stride_w=int(stride[1]), stride_h=int(stride[0]),
          dilation_w_factor=int(dilation[1]), dilation_h_factor=int(dilation[0]), depth_multiplier=multiplier,
          fused_activation_function=fused(rng))  # fmt: skip
    return Case(m.finish(out), [inputs(rng, dtype, (batch, h, w, c))])


def _windowed_output(
    rng: Generator, m: ModelWriter, dtype: str, images: tuple[int, int, int], channels: int, kernel: Any, stride: Any, dilation: Any, padding: int,
    real: float,
) -> int:  # fmt: skip
    (batch, *size), extent = images, (kernel - 1) * dilation + 1
    dims = [-(-size[i] // int(stride[i])) if padding == 0 else -(-(size[i] - int(extent[i]) + 1) // int(stride[i])) for i in (0, 1)]
    return m.tensor(dtype, [batch, *dims, channels], float(real / 128 * rng.choice([0.3, 1, 3])), zero(rng, dtype))


def fully_connected(rng: Generator, dtype: str) -> Case:
    m = ModelWriter()
    rows, depth, o = int(rng.choice([1, 1, 3])), int(rng.integers(1, 40)), int(rng.integers(1, 9))
    s_in, z_in = scale(rng), zero(rng, dtype)
    x = m.input(dtype, [rows, depth], s_in, z_in)
    f, scales, _ = weights(rng, m, dtype, (o, depth), 0)
    spread = 75 * 75 * np.sqrt(depth)
    b = bias(rng, m, o, np.float32(s_in) * scales, spread)
    out = m.tensor(dtype, [rows, o], float(s_in * scales.max() * spread / 128 * rng.choice([0.3, 1, 3])), zero(rng, dtype))
    m.add("FULLY_CONNECTED", [x, f, b], out, fused_activation_function=fused(rng), keep_num_dims=False)
    return Case(m.finish(out), [inputs(rng, dtype, (rows, depth))])


def kept_dimensions(rng: Generator, dtype: str) -> Case:
    """FULLY_CONNECTED on every row of a sequence."""
    m = ModelWriter()
    time, depth, o = (int(v) for v in rng.integers(1, 7, 3))
    s_in, z_in = scale(rng), zero(rng, dtype)
    x = m.input(dtype, [1, time, depth], s_in, z_in)
    f, scales, _ = weights(rng, m, dtype, (o, depth), 0, one_scale=True)
    out = m.tensor(dtype, [1, time, o], float(s_in * scales.max() * 75 * 75 * np.sqrt(depth) / 128), zero(rng, dtype))
    m.add("FULLY_CONNECTED", [x, f, -1], out, fused_activation_function=fused(rng), keep_num_dims=True)
    return Case(m.finish(out), [inputs(rng, dtype, (1, time, depth))])


def flattened(rng: Generator, dtype: str, batch: int = 1) -> Case:
    """FULLY_CONNECTED over an image, with and without a RESHAPE before it."""
    m = ModelWriter()
    h, w, c, o = (int(v) for v in rng.integers(1, [5, 5, 5, 5]))
    s_in, z_in, depth = scale(rng), zero(rng, dtype), h * w * c
    x = m.input(dtype, [batch, h, w, c], s_in, z_in)
    if rng.random() < 0.5:
        flat = m.tensor(dtype, [batch, depth], s_in, z_in)
        x = m.add("RESHAPE", [x, m.constant(ints([batch, depth]))], flat, new_shape=[batch, depth])
    f, scales, _ = weights(rng, m, dtype, (o, depth), 0)
    out = m.tensor(dtype, [batch, o], float(s_in * scales.max() * 75 * 75 * np.sqrt(depth) / 128), zero(rng, dtype))
    m.add("FULLY_CONNECTED", [x, f], out, fused_activation_function=fused(rng), keep_num_dims=False)
    return Case(m.finish(out), [inputs(rng, dtype, (batch, h, w, c))])


def _pair_shapes(rng: Generator) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    shape = tuple(int(v) for v in rng.integers(1, 5, 4))
    first, second = list(shape), list(shape)
    if rng.random() < 0.4:
        for i in range(4):
            other = rng.choice([0, 1, 2])
            if other == 1:
                first[i] = 1
            if other == 2:
                second[i] = 1
    result = tuple(np.broadcast_shapes(first, second))
    return tuple(first), tuple(second), result


def _elementwise(kind: str) -> Callable[[Generator, str], Case]:
    def make(rng: Generator, dtype: str) -> Case:
        m = ModelWriter()
        first, second, result = _pair_shapes(rng)
        s1, s2 = scale(rng), scale(rng)
        a, b = m.input(dtype, first, s1, zero(rng, dtype)), m.input(dtype, second, s2, zero(rng, dtype))
        out = m.tensor(dtype, result, _elementwise_scale(rng, kind, s1, s2), zero(rng, dtype))
        m.add(kind, [a, b], out, fused_activation_function=fused(rng))
        return Case(m.finish(out), [inputs(rng, dtype, first), inputs(rng, dtype, second)])

    return make


def _elementwise_constant(kind: str) -> Callable[[Generator, str], Case]:
    """One operand constant: a scalar, one value for each channel, or everything different."""

    def make(rng: Generator, dtype: str) -> Case:
        m = ModelWriter()
        shape = tuple(int(v) for v in rng.integers(1, 5, 4))
        known = [(), (1,), (shape[3],), (1, 1, 1, shape[3]), shape, (1, *shape[1:3], 1)][int(rng.integers(6))]
        s1, s2 = scale(rng), scale(rng)
        a = m.input(dtype, shape, s1, zero(rng, dtype))
        b = m.constant(np.asarray(array(rng, dtype, known)), s2, zero(rng, dtype))
        out = m.tensor(dtype, shape, _elementwise_scale(rng, kind, s1, s2), zero(rng, dtype))
        m.add(kind, [a, b] if rng.random() < 0.5 else [b, a], out, fused_activation_function=fused(rng))
        return Case(m.finish(out), [inputs(rng, dtype, shape)])

    return make


def _elementwise_scale(rng: Generator, kind: str, s1: float, s2: float) -> float:
    natural = s1 * s2 * 80 if kind == "MUL" else max(s1, s2)
    return float(natural * rng.choice([0.5, 1, 2]) * rng.uniform(0.8, 1.2))


def _pool(kind: str, batch: int = 1) -> Callable[[Generator, str], Case]:
    def make(rng: Generator, dtype: str) -> Case:
        m = ModelWriter()
        h, w, c = (int(v) for v in rng.integers(1, [9, 9, 6]))
        kernel, stride = rng.integers(1, 5, 2), rng.integers(1, 4, 2)
        padding = int(rng.integers(0, 2)) if all(kernel <= (h, w)) else 0
        q = scale(rng), zero(rng, dtype)
        x = m.input(dtype, [batch, h, w, c], *q)
        dims = [-(-(h, w)[i] // int(stride[i])) if padding == 0 else -(-((h, w)[i] - int(kernel[i]) + 1) // int(stride[i])) for i in (0, 1)]
        out = m.tensor(dtype, [batch, *dims, c], *q)
        m.add(kind, [x], out, padding=padding, stride_w=int(stride[1]), stride_h=int(stride[0]), filter_width=int(kernel[1]),
              filter_height=int(kernel[0]), fused_activation_function=fused(rng))  # fmt: skip
        return Case(m.finish(out), [inputs(rng, dtype, (batch, h, w, c))])

    return make


def mean(rng: Generator, dtype: str) -> Case:
    m = ModelWriter()
    shape = tuple(int(v) for v in rng.integers(1, 6, int(rng.integers(2, 5))))
    axes = sorted(int(a) for a in rng.choice(len(shape), int(rng.integers(1, len(shape) + 1)), replace=False))
    keep = bool(rng.integers(2)) or len(axes) == len(shape)
    dims = [1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes]
    s = scale(rng)
    x = m.input(dtype, shape, s, zero(rng, dtype))
    out = m.tensor(dtype, dims, float(s * rng.choice([1, 1, 0.37, 1.9])), zero(rng, dtype))
    m.add("MEAN", [x, m.constant(ints([a - len(shape) * int(rng.integers(2)) for a in axes]))], out, keep_dims=keep)
    return Case(m.finish(out), [inputs(rng, dtype, shape)])


def pad(rng: Generator, dtype: str) -> Case:
    m = ModelWriter()
    shape = tuple(int(v) for v in rng.integers(1, 5, 4))
    amounts = rng.integers(0, 3, (4, 2)).astype(np.int32)
    q = scale(rng), zero(rng, dtype)
    x = m.input(dtype, shape, *q)
    out = m.tensor(dtype, [int(v) for v in shape + amounts.sum(1)], *q)
    if rng.random() < 0.5:
        m.add("PAD", [x, m.constant(amounts)], out)
    else:
        m.add("PADV2", [x, m.constant(amounts), m.constant(array(rng, dtype, (1,)), *q)], out)
    return Case(m.finish(out), [inputs(rng, dtype, shape)])


def padded_convolution(rng: Generator, dtype: str) -> Case:
    """PAD before a convolution, as exported from PyTorch; also with another fill, and along the channels."""
    m = ModelWriter()
    h, w, c = (int(v) for v in rng.integers(3, 6, 3))
    amounts = np.zeros((4, 2), np.int32)
    amounts[1:3] = rng.integers(0, 3, (2, 2))
    amounts[3] = rng.choice([0, 0, 0, 1])
    q = scale(rng), zero(rng, dtype)
    x = m.input(dtype, [1, h, w, c], *q)
    shape = [int(v) for v in np.array([1, h, w, c]) + amounts.sum(1)]
    fill = [m.constant(array(rng, dtype, (1,)), *q)] if rng.random() < 0.4 else []
    padded = m.add("PADV2" if fill else "PAD", [x, m.constant(amounts), *fill], m.tensor(dtype, shape, *q))
    f, scales, _ = weights(rng, m, dtype, (3, 3, 3, shape[3]), 0)
    stride, padding = rng.integers(1, 3, 2), int(rng.choice([0, 1, 1]))
    out = _windowed_output(rng, m, dtype, (shape[0], shape[1], shape[2]), 3, np.array([3, 3]), stride, np.array([1, 1]), padding,
                           q[0] * scales.max() * 75 * 75 * np.sqrt(9 * shape[3]))  # fmt: skip
    b = bias(rng, m, 3, np.float32(q[0]) * scales, 1000, optional=False)
    m.add("CONV_2D", [padded, f, b], out, padding=padding, stride_w=int(stride[1]), stride_h=int(stride[0]), dilation_w_factor=1,
          dilation_h_factor=1, fused_activation_function=fused(rng))  # fmt: skip
    return Case(m.finish(out), [inputs(rng, dtype, (1, h, w, c))])


def reshape(rng: Generator, dtype: str) -> Case:
    """RESHAPE, SQUEEZE or EXPAND_DIMS, then a MUL that needs the new layout."""
    m = ModelWriter()
    shape = tuple(int(v) for v in rng.integers(1, 5, 4))
    q = scale(rng), zero(rng, dtype)
    x = m.input(dtype, shape, *q)
    kind = str(rng.choice(["RESHAPE", "SQUEEZE", "EXPAND_DIMS"]))
    if kind == "RESHAPE":
        dims = [[int(np.prod(shape))], [shape[0] * shape[1], shape[2] * shape[3]], [shape[3], -1]][int(rng.integers(3))]
        done = [d if d > 0 else int(np.prod(shape)) // shape[3] for d in dims]
        y = m.add(kind, [x, m.constant(ints(dims))], m.tensor(dtype, done, *q), new_shape=dims)
    elif kind == "SQUEEZE":
        axes = [i for i, d in enumerate(shape) if d == 1]
        done = [d for d in shape if d != 1]
        y = m.add(kind, [x], m.tensor(dtype, done, *q), squeeze_dims=axes)
    else:
        axis = int(rng.integers(0, 5))
        done = [*shape[:axis], 1, *shape[axis:]]
        y = m.add(kind, [x, m.constant(ints([axis]))], m.tensor(dtype, done, *q))
    return Case(m.finish(y), [inputs(rng, dtype, shape)])


def regroup(rng: Generator, dtype: str) -> Case:
    """RESHAPE to rows that are neither longer nor shorter by whole dimensions, then a FULLY_CONNECTED on each."""
    m = ModelWriter()
    first, second = (int(v) for v in rng.choice([(4, 6), (6, 4), (9, 6), (10, 4), (6, 15)]))
    total = int(np.lcm(first, second)) * int(rng.integers(1, 4))
    s_in, z_in = scale(rng), zero(rng, dtype)
    x = m.input(dtype, [1, total // first, first], s_in, z_in)
    shape = [total // second, second]
    y = m.add("RESHAPE", [x, m.constant(ints(shape))], m.tensor(dtype, shape, s_in, z_in), new_shape=shape)
    f, scales, _ = weights(rng, m, dtype, (3, second), 0)
    out = m.tensor(dtype, [shape[0], 3], float(s_in * scales.max() * 75 * 75 * np.sqrt(second) / 128), zero(rng, dtype))
    m.add("FULLY_CONNECTED", [y, f], out, fused_activation_function=fused(rng), keep_num_dims=False)
    return Case(m.finish(out), [inputs(rng, dtype, (1, total // first, first))])


def transpose(rng: Generator, dtype: str) -> Case:
    m = ModelWriter()
    shape = tuple(int(v) for v in rng.integers(1, 5, int(rng.integers(2, 5))))
    perm = rng.permutation(len(shape)).astype(np.int32)
    q = scale(rng), zero(rng, dtype)
    out = m.tensor(dtype, [shape[int(p)] for p in perm], *q)
    m.add("TRANSPOSE", [m.input(dtype, shape, *q), m.constant(perm)], out)
    return Case(m.finish(out), [inputs(rng, dtype, shape)])


def concatenation(rng: Generator, dtype: str) -> Case:
    m = ModelWriter()
    shape, axis = [int(v) for v in rng.integers(1, 4, 4)], int(rng.integers(4))
    q = scale(rng), zero(rng, dtype)
    shapes = []
    for _ in range(int(rng.integers(2, 5))):
        shape[axis] = int(rng.integers(1, 4))
        shapes.append(tuple(shape))
    tensors = [m.input(dtype, one, *q) for one in shapes]
    if rng.random() < 0.3:
        shape[axis] = 2
        tensors.insert(1, m.constant(array(rng, dtype, tuple(shape)), *q))
    shape[axis] = sum(m.tensors[t].shape[axis] for t in tensors)
    out = m.tensor(dtype, shape, *q)
    m.add("CONCATENATION", tensors, out, axis=axis - 4 * int(rng.integers(2)), fused_activation_function=0)
    return Case(m.finish(out), [inputs(rng, dtype, one) for one in shapes])


def strided_slice(rng: Generator, dtype: str) -> Case:
    """Bounds inside and outside of the shape, negative strides, begin, end and shrink masks."""
    while True:
        shape = tuple(int(v) for v in rng.integers(1, 6, int(rng.integers(1, 5))))
        begin, end = rng.integers(-7, 7, (2, len(shape)))
        strides = rng.choice([1, 1, 2, 3, -1, -2], len(shape))
        begin_mask, end_mask, shrink = (int(rng.integers(1 << len(shape))) & int(rng.integers(1 << len(shape))) for _ in range(3))
        index: list[Any] = []
        for i, dim in enumerate(shape):
            if shrink >> i & 1:
                strides[i], begin_mask = 1, begin_mask & ~(1 << i)
                begin[i] = rng.integers(-dim, dim)
                index.append(int(begin[i]))
            else:
                index.append(
                    slice(None if begin_mask >> i & 1 else int(begin[i]), None if end_mask >> i & 1 else int(end[i]), int(strides[i]))
                )
        dims = np.empty(shape)[tuple(index)].shape
        if 0 not in dims and dims:
            break
    m, q = ModelWriter(), (scale(rng), zero(rng, dtype))
    out = m.tensor(dtype, dims, *q)
    bounds = [m.constant(v.astype(np.int32)) for v in (begin, end, strides)]
    m.add("STRIDED_SLICE", [m.input(dtype, shape, *q), *bounds], out, begin_mask=begin_mask, end_mask=end_mask, shrink_axis_mask=shrink)
    return Case(m.finish(out), [inputs(rng, dtype, shape)])


def softmax(rng: Generator, dtype: str) -> Case:
    m = ModelWriter()
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 12)))
    x = m.input(dtype, shape, scale(rng, 1e-3, 2), zero(rng, dtype))
    out = m.tensor(dtype, shape, 1 / 256, LIMITS[dtype][0])
    m.add("SOFTMAX", [x], out, beta=float(rng.choice([1.0, 0.5, 2.3])))
    return Case(m.finish(out), [inputs(rng, dtype, shape)])


def _unary(
    kind: str, output: tuple[float, dict[str, int]] | None, low: float = 1e-3, high: float = 0.3
) -> Callable[[Generator, str], Case]:
    """All 256 inputs; the output's scale and zero point are given, or those of the input."""

    def make(rng: Generator, dtype: str) -> Case:
        m = ModelWriter()
        q = scale(rng, low, high), zero(rng, dtype)
        x = m.input(dtype, [4, 64], *q)
        out = m.tensor(dtype, [4, 64], *(q if output is None else (output[0], output[1][dtype])))
        m.add(kind, [x], out)
        low_value, high_value = LIMITS[dtype]
        return Case(m.finish(out), [np.arange(low_value, high_value + 1).astype(dtype).reshape(1, 4, 64)])

    return make


def hard_swish(rng: Generator, dtype: str) -> Case:
    m = ModelWriter()
    s = scale(rng, 1e-3, 0.3)
    x = m.input(dtype, [4, 64], s, zero(rng, dtype))
    out = m.tensor(dtype, [4, 64], float(s * rng.choice([1.0, 0.5, 0.6, 2.0])), zero(rng, dtype))
    m.add("HARD_SWISH", [x], out)
    low, high = LIMITS[dtype]
    return Case(m.finish(out), [np.arange(low, high + 1).astype(dtype).reshape(1, 4, 64)])


def quantize(rng: Generator, dtype: str) -> Case:
    """Between integer types; TFLM has no uint8 to uint8."""
    m = ModelWriter()
    other = dtype if rng.random() < 0.5 else "uint8" if dtype == "int8" else "int8"
    s = scale(rng)
    x = m.input(dtype, [4, 64], s, zero(rng, dtype))
    out = m.tensor(other, [4, 64], float(s * rng.choice([1.0, 0.4, 3.3])), zero(rng, other))
    m.add("QUANTIZE", [x], out)
    low, high = LIMITS[dtype]
    return Case(m.finish(out), [np.arange(low, high + 1).astype(dtype).reshape(1, 4, 64)])


def float_edges(rng: Generator, dtype: str) -> Case:
    """QUANTIZE, a RELU, DEQUANTIZE."""
    m = ModelWriter()
    q = scale(rng, 1e-3, 0.3), zero(rng, dtype)
    x = m.input("float32", [4, 64])
    inside = m.add("QUANTIZE", [x], m.tensor(dtype, [4, 64], *q))
    relu = m.add("RELU", [inside], m.tensor(dtype, [4, 64], *q))
    out = m.add("DEQUANTIZE", [relu], m.tensor("float32", [4, 64]))
    values = rng.normal(0, 100 * q[0], (RUNS, 4, 64)).astype(np.float32)
    values[0] = np.float32(q[0]) * (np.arange(256).reshape(4, 64) - 128 + np.float32(0.5))
    return Case(m.finish(out), [values])


def shape_arithmetic(rng: Generator, dtype: str) -> Case:
    """RESHAPE to a shape computed from SHAPE, STRIDED_SLICE and PACK, as Keras' Flatten exports it."""
    m = ModelWriter()
    shape = tuple(int(v) for v in rng.integers(1, 5, 4))
    q = scale(rng), zero(rng, dtype)
    x = m.input(dtype, shape, *q)
    whole = m.add("SHAPE", [x], m.tensor("int32", [4]), out_type=tflite.TensorType.INT32)
    bounds = [m.constant(ints([v])) for v in (0, 1, 1)]
    batch = m.add("STRIDED_SLICE", [whole, *bounds], m.tensor("int32", []), shrink_axis_mask=1)
    packed = m.add("PACK", [batch, m.constant(ints(-1))], m.tensor("int32", [2]), values_count=2, axis=0)
    out = m.tensor(dtype, [shape[0], int(np.prod(shape[1:]))], *q)
    m.add("RESHAPE", [x, packed], out)
    return Case(m.finish(out), [inputs(rng, dtype, shape)])


def network(rng: Generator, dtype: str) -> Case:
    """A small network: depthwise, pointwise, residual ADD, pool, FULLY_CONNECTED, SOFTMAX."""
    m = ModelWriter()
    q = [(scale(rng, 0.01, 0.1), zero(rng, dtype)) for _ in range(6)]
    x = m.input(dtype, [1, 8, 8, 4], *q[0])
    f, scales, _ = weights(rng, m, dtype, (1, 3, 3, 4), 3)
    y = m.tensor(dtype, [1, 8, 8, 4], float(q[0][0] * scales.max() * 75 * 75 * 3 / 128), q[1][1])
    m.add("DEPTHWISE_CONV_2D", [x, f, m.constant(rng.integers(-2000, 2000, 4).astype(np.int32), [float(np.float32(q[0][0] * s)) for s in scales])],
          y, padding=0, stride_w=1, stride_h=1, dilation_w_factor=1, dilation_h_factor=1, depth_multiplier=1, fused_activation_function=1)  # fmt: skip
    f, scales, _ = weights(rng, m, dtype, (4, 1, 1, 4), 0)
    z = m.tensor(dtype, [1, 8, 8, 4], float(m.tensors[y].scales[0] * scales.max() * 75 * 75 * 2 / 128), q[2][1])
    b = bias(rng, m, 4, np.float32(m.tensors[y].scales[0]) * scales, 1000, optional=False)
    m.add("CONV_2D", [y, f, b], z, padding=1, stride_w=1, stride_h=1, dilation_w_factor=1, dilation_h_factor=1, fused_activation_function=0)
    total = m.tensor(dtype, [1, 8, 8, 4], float(max(q[0][0], m.tensors[z].scales[0])), q[3][1])
    m.add("ADD", [x, z], total, fused_activation_function=1)
    pooled = m.tensor(dtype, [1, 2, 2, 4], m.tensors[total].scales[0], q[3][1])
    m.add(
        "AVERAGE_POOL_2D", [total], pooled, padding=1, stride_w=4, stride_h=4, filter_width=4, filter_height=4, fused_activation_function=0
    )
    flat = m.add(
        "RESHAPE", [pooled, m.constant(ints([1, 16]))], m.tensor(dtype, [1, 16], m.tensors[total].scales[0], q[3][1]), new_shape=[1, 16]
    )
    f, scales, _ = weights(rng, m, dtype, (5, 16), 0)
    logits = m.tensor(dtype, [1, 5], float(m.tensors[total].scales[0] * scales.max() * 75 * 75 * 4 / 128), q[4][1])
    m.add("FULLY_CONNECTED", [flat, f], logits, fused_activation_function=0, keep_num_dims=False)
    out = m.tensor(dtype, [1, 5], 1 / 256, LIMITS[dtype][0])
    m.add("SOFTMAX", [logits], out, beta=1.0)
    return Case(m.finish(out), [inputs(rng, dtype, (1, 8, 8, 4), 20)])


CASES: dict[str, Callable[[Generator, str], Case]] = {
    "add": _elementwise("ADD"),
    "add constant": _elementwise_constant("ADD"),
    "average pool": _pool("AVERAGE_POOL_2D"),
    "average pool of a batch": _pool("AVERAGE_POOL_2D", 3),
    "concatenation": concatenation,
    "convolution": convolution,
    "convolution of a batch": partial(convolution, batch=3),
    "depthwise": depthwise,
    "depthwise of a batch": partial(depthwise, batch=2),
    "flattened": flattened,
    "flattened batch": partial(flattened, batch=3),
    "float edges": float_edges,
    "fully connected": fully_connected,
    "fully connected, kept dimensions": kept_dimensions,
    "hard swish": hard_swish,
    "logistic": _unary("LOGISTIC", (1 / 256, {"int8": -128, "uint8": 0})),
    "max pool": _pool("MAX_POOL_2D"),
    "max pool of a batch": _pool("MAX_POOL_2D", 2),
    "mean": mean,
    "mul": _elementwise("MUL"),
    "mul constant": _elementwise_constant("MUL"),
    "network": network,
    "pad": pad,
    "padded convolution": padded_convolution,
    "quantize": quantize,
    "regroup": regroup,
    "relu": _unary("RELU", None),
    "relu6": _unary("RELU6", None),
    "reshape": reshape,
    "shape arithmetic": shape_arithmetic,
    "softmax": softmax,
    "strided slice": strided_slice,
    "sub": _elementwise("SUB"),
    "sub constant": _elementwise_constant("SUB"),
    "tanh": _unary("TANH", (1 / 128, {"int8": 0, "uint8": 128})),
    "transpose": transpose,
}
"""Every operator by name."""
