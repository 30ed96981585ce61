"""Tables of unary operators: row `i` is the output for input `min(dtype) + i`."""

from collections.abc import Callable
from math import floor, frexp

import numpy as np
from numpy.typing import NDArray

from nexus_edge.proofs.importers import fixed_point as fp
from nexus_edge.proofs.importers.quantization import Quantization, quantize_multiplier, rescale, round_half_away

Table = NDArray[np.int16]


class Undefined(ValueError):
    """The runtimes refuse these parameters, or disagree about them."""


def inputs(q: Quantization) -> NDArray[np.int64]:
    """All values of a tensor minus its zero point."""
    low, high = q.range
    return np.arange(low, high + 1, dtype=np.int64) - q.zero_point


def clamp(values: NDArray[np.int64], low: int, high: int) -> Table:
    """The table of clamped values."""
    return np.clip(values, low, high).astype(np.int16)


def requantize(x: Quantization, out: Quantization) -> Table:
    """QUANTIZE between integer types."""
    return clamp(rescale(inputs(x), quantize_multiplier(x.scale / out.scale)) + out.zero_point, *out.range)


def clip(x: Quantization, low: float, high: float | None) -> Table:
    """RELU, RELU6, RELU_N1_TO_1 as operators of their own: input and output share their parameters."""
    smallest, largest = x.range
    bottom = max(smallest, x.zero_point + round_half_away(np.float32(low) / np.float32(x.scale)))
    top = largest if high is None else min(largest, x.zero_point + round_half_away(np.float32(high) / np.float32(x.scale)))
    return clamp(np.arange(smallest, largest + 1, dtype=np.int64), bottom, top)


def logistic(x: Quantization, out: Quantization, semantics: str) -> Table:
    """LOGISTIC to scale 1/256: fixed point in TFLM, float32 in the others."""
    if out.scale != 1 / 256 or out.zero_point != out.range[0]:
        raise Undefined("its output must have scale 1/256 and the smallest value as zero point")
    if semantics != "tflm":
        return _float_table(x, out, lambda v: np.float32(1) / (np.float32(1) + np.exp(-v)))
    return _fixed_point_table(x, out, lambda a: fp.round_shift(fp.logistic(a, 4), 23) + out.zero_point)


def tanh(x: Quantization, out: Quantization, semantics: str) -> Table:
    """TANH to scale 1/128: fixed point in TFLM, float32 in the others."""
    if out.scale != 1 / 128 or out.zero_point != sum(out.range) // 2 + 1:
        raise Undefined("its output must have scale 1/128 and the middle value as zero point")
    if semantics != "tflm":
        return _float_table(x, out, np.tanh)
    return _fixed_point_table(x, out, lambda a: fp.round_shift(fp.tanh(a, 4), 24))


def hard_swish(x: Quantization, out: Quantization, semantics: str) -> Table:
    """HARD_SWISH `x relu6(x + 3) / 6` in int16 fixed point; TFLM divides the scales in double, the others in float32."""
    divide = _divide_double if semantics == "tflm" else _divide_float32
    out_multiplier, out_exponent = _multiplier_16(divide(x.scale / 128, out.scale))
    relu_multiplier, relu_exponent = _multiplier_16(divide(x.scale / 128, 3 / 32768))
    if not 0 <= out_exponent <= 15:
        raise Undefined("the output scale is too small beside the input scale")
    if not -30 <= relu_exponent <= 15:
        raise Undefined("the input scale is out of the kernel's range")
    value = inputs(x) << 7
    preshift = fp.high_mul_16(value, out_multiplier)
    # x rescaled from [-3, 3] to [-1, 1], saturating; then to [0, 1].
    relu = fp.saturating_shift_16(value, -relu_exponent - 1) if relu_exponent < 0 else value
    relu = fp.high_mul_16(relu, relu_multiplier)
    relu = fp.saturating_shift_16(relu, 1) if relu_exponent < 0 else fp.round_shift(relu, relu_exponent)
    relu = (relu + (1 << 15)) >> 1
    return clamp(fp.round_shift(fp.truncating_high_mul_16(relu, preshift), out_exponent) + out.zero_point, *out.range)


def _divide_double(a: float, b: float) -> float:
    return a / b


def _divide_float32(a: float, b: float) -> float:
    return float(np.float32(a) / np.float32(b))


def _multiplier_16(real: float) -> tuple[int, int]:
    """QuantizeMultiplier, then its multiplier rounded to int16: `(M, e)` for `M 2^(-15-e)`."""
    m, e = quantize_multiplier(real)
    return ((1 << 15) - 1 if m >= (1 << 31) - (1 << 15) else (m + (1 << 15)) >> 16), e


def _fixed_point_table(x: Quantization, out: Quantization, function: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Table:
    """A function on Q4.27, saturated where the input leaves that."""
    fraction, shift = frexp(x.scale * (1 << 27))
    if not 0 <= shift <= 30:
        raise Undefined("the input scale is out of the kernel's range")
    radius = floor(15 * (1 << 27) / (1 << shift))
    value = inputs(x)
    inside = np.abs(value) < radius
    q4 = rescale(np.where(inside, value, 0), (floor(fraction * (1 << 31) + 0.5), -shift))
    return clamp(np.where(inside, function(q4), np.where(value <= -radius, out.range[0], out.range[1])), *out.range)


def _float_table(x: Quantization, out: Quantization, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Table:
    """The runtime's table: dequantise, apply, quantise, all in float32."""
    with np.errstate(over="ignore"):
        real = function(np.float32(x.scale) * inputs(x).astype(np.float32))
        scaled = (real * (np.float32(1) / np.float32(out.scale))).astype(np.float64)
    rounded = np.where(scaled >= 0, np.floor(scaled + 0.5), -np.floor(0.5 - scaled))
    return clamp(rounded.astype(np.int64) + out.zero_point, *out.range)
