"""Fixed-point functions of TensorFlow Lite's reference kernels, on arrays of int64 that hold int32 (or int16) values.

`Qm.n` has m integer bits, n fractional ones and a sign. The constants are the functions' values at fixed points, rounded.
"""

from math import exp

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]

ONE = (1 << 31) - 1
"""1 in Q0.31, saturated."""
_MIN, _MAX = -(1 << 31), ONE
_EXP_STEPS = [(power, round(exp(-(2.0**power)) * (1 << 31))) for power in range(-2, 5)]
"""`exp(-2^power)` in Q0.31."""
_EXP_EIGHTH = 1895147668
"""exp(-1/8)"""
_THIRD = 715827883
_48_OVER_17, _32_OVER_17 = 1515870810, 1010580540
"""In Q2.29: the line that starts Newton's division."""


def high_mul(a: Array | int, b: Array | int) -> Array:
    """SaturatingRoundingDoublingHighMul without its one saturating case: the product in Q0.31, ties up."""
    return np.asarray((np.asarray(a, np.int64) * b + (1 << 30)) >> 31)


def round_shift(x: Array, bits: int) -> Array:
    """RoundingDivideByPOT: `x / 2^bits`, ties away from zero."""
    if bits == 0:
        return x
    half = 1 << (bits - 1)
    return np.where(x >= 0, (x + half) >> bits, -((-x + half) >> bits))


def _shift_left(x: Array, bits: int) -> Array:
    return np.asarray(np.clip(x << bits, _MIN, _MAX))


def _exp_near_zero(a: Array) -> Array:
    """Exp on [-1/4, 0) in Q0.31: the Taylor polynomial of degree 4 around -1/8."""
    x = a + (1 << 28)
    x2 = high_mul(x, x)
    x3, x4 = high_mul(x2, x), high_mul(x2, x2)
    tail = round_shift(high_mul(round_shift(x4, 2) + x3, _THIRD) + x2, 1)
    return _EXP_EIGHTH + high_mul(x + tail, _EXP_EIGHTH)


def exp_on_negative_values(a: Array, integer_bits: int) -> Array:
    """Exp of `a <= 0` in Q(integer_bits).(31 - integer_bits), as Q0.31."""
    fraction = 31 - integer_bits
    quarter = 1 << (fraction - 2)
    near = (a & (quarter - 1)) - quarter
    result = _exp_near_zero(_shift_left(near, integer_bits))
    remainder = near - a
    for power, multiplier in _EXP_STEPS:
        if integer_bits > power:
            result = np.where(remainder & (1 << (fraction + power)), high_mul(result, multiplier), result)
    return np.where(a == 0, ONE, result)


def _newton_reciprocal(a: Array) -> Array:
    """`2 / (1 + a)` in Q2.29 for `a` in [0, 1]: three steps of Newton's division."""
    half_denominator = (a + ONE + 1) >> 1
    x = _48_OVER_17 - high_mul(half_denominator, _32_OVER_17)
    for _ in range(3):
        x = x + _shift_left(high_mul(x, (1 << 29) - high_mul(half_denominator, x)), 2)
    return x


def logistic(a: Array, integer_bits: int) -> Array:
    """`1 / (1 + exp(-a))` in Q0.31."""
    positive = _shift_left(_newton_reciprocal(exp_on_negative_values(-np.abs(a), integer_bits)), 1)
    return np.where(a == 0, 1 << 30, np.where(a > 0, positive, ONE - positive))


def tanh(a: Array, integer_bits: int) -> Array:
    """Tanh in Q0.31, by `(1 - exp(-2a)) / (1 + exp(-2a))`."""
    size = _shift_left(_newton_reciprocal(exp_on_negative_values(-np.abs(a), integer_bits + 1)) - (1 << 29), 2)
    return np.where(a == 0, 0, np.where(a > 0, size, -size))


def high_mul_16(a: Array, b: int) -> Array:
    """SaturatingRoundingDoublingHighMul of int16 values without its saturating case: the product in Q0.15, ties up."""
    return np.asarray((a * b + (1 << 14)) >> 15)


def truncating_high_mul_16(a: Array, b: Array) -> Array:
    """The product of int16 values in Q0.15, towards zero."""
    product = a * b
    return np.where(product >= 0, product >> 15, -(-product >> 15))


def saturating_shift_16(a: Array, bits: int) -> Array:
    """Left shift with saturation to int16."""
    return np.asarray(np.clip(a << bits, -(1 << 15), (1 << 15) - 1))
