"""Integer arithmetic of quantised tensors, as the runtimes' reference kernels do it (all scales are float32 values)."""

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, frexp

import numpy as np
from numpy.typing import NDArray

Multiplier = tuple[int, int]
"""`(M, e)`: multiply by `M / 2^31`, then by `2^-e`."""

RANGES = {"int8": (-128, 127), "uint8": (0, 255)}

INT32 = (-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True)
class Quantization:
    """`real = scale (value - zero_point)` with values of `dtype`."""

    dtype: str
    scale: float
    zero_point: int

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest value."""
        return RANGES[self.dtype]


def quantize_multiplier(real: float) -> Multiplier:
    """QuantizeMultiplier: `M` in [2^30, 2^31) with `real ~ M 2^(-31-e)`; `(0, 0)` below about 2^-32.

    Raises `OverflowError` for 2^31 and more, where the kernels cannot shift any accumulator but 0.
    """
    if real == 0:
        return 0, 0
    if not real < 1 << 31:
        raise OverflowError(f"the multiplier {real} is above 2^31")
    fraction, shift = frexp(real)
    m = floor(fraction * (1 << 31) + 0.5)
    if m == 1 << 31:
        m, shift = m // 2, shift + 1
    return (0, 0) if shift < -31 else (m, -shift)


def mean_multiplier(real: float, count: int) -> Multiplier:
    """The multiplier of MEAN: `1/count` folded into that of the scales, truncating; `M` may be as small as the fold makes it."""
    m, e = quantize_multiplier(real)
    shift = min(count.bit_length() - 1, 32, 31 - e)
    return (m << shift) // count, e + shift


def rescale(acc: NDArray[np.int64], multiplier: Multiplier) -> NDArray[np.int64]:
    """MultiplyByQuantizedMultiplier with two roundings: ties up in the first, away from zero in the second.

    Raises `OverflowError` where the kernel's left shift leaves int32.
    """
    m, e = multiplier
    shifted = acc << max(-e, 0)
    if acc.size and not INT32[0] <= int(shifted.min()) <= int(shifted.max()) <= INT32[1]:
        raise OverflowError(f"the values {int(acc.min())} to {int(acc.max())}, shifted left by {-e}, leave int32")
    high = (shifted * m + (1 << 30)) >> 31
    if e <= 0:
        return high
    half = 1 << (e - 1)
    return np.where(high >= 0, (high + half) >> e, -((-high + half) >> e))


def rescale_once(acc: NDArray[np.int64], multiplier: Multiplier) -> NDArray[np.int64]:
    """MultiplyByQuantizedMultiplier with one rounding, ties up."""
    m, e = multiplier
    return (acc * m + (1 << (30 + e))) >> (31 + e)


Rescaling = Callable[[NDArray[np.int64], Multiplier], NDArray[np.int64]]


def is_float_rounding(rescaling: Rescaling, multiplier: Multiplier, real: float, values: tuple[int, int]) -> bool:
    """Whether an integer formula equals `round(acc * real)` in doubles for every int32 `acc` that leads to one of `values`.

    Both are staircases, so it is enough to compare them around each step of the second.
    """
    lowest, highest = INT32
    v = np.arange(values[0], values[1] + 1)
    with np.errstate(divide="ignore", over="ignore"):
        steps = np.clip(np.ceil((v - 0.5) / real), lowest - 1, highest + 1).astype(np.int64)
    for _ in range(4):  # the division is off by little
        steps += _float_rounding(steps, real) < v
        steps -= _float_rounding(steps - 1, real) >= v
    never, always = steps > highest, steps <= lowest
    there, before = np.clip(steps, lowest, highest), np.clip(steps - 1, lowest, highest)
    reaches = (_float_rounding(there, real) >= v) | never
    exact = (_float_rounding(before, real) < v) | always
    return bool(np.all(reaches & exact & ((rescaling(there, multiplier) >= v) | never) & ((rescaling(before, multiplier) < v) | always)))


def _float_rounding(acc: NDArray[np.int64], real: float) -> NDArray[np.float64]:
    scaled = acc * real
    size = np.floor(np.abs(scaled))
    return np.asarray(np.copysign(size + (np.abs(scaled) - size >= 0.5), scaled))


def round_half_away(value: np.float32) -> int:
    """TfLiteRound of a float32."""
    x = float(value)
    return floor(x + 0.5) if x >= 0 else -floor(-x + 0.5)


def activation_range(activation: int, q: Quantization) -> tuple[int, int] | None:
    """The clamp that a fused activation means; `None` if it is none of NONE, RELU, RELU_N1_TO_1, RELU6.

    Raises `OverflowError` where a bound leaves int32 (the runtimes refuse).
    """
    low, high = q.range
    bounds: dict[int, tuple[float | None, float | None]] = {0: (None, None), 1: (0, None), 2: (-1, 1), 3: (0, 6)}
    if activation not in bounds:
        return None
    real_low, real_high = bounds[activation]
    if real_low is not None:
        low = max(low, _quantize_bound(real_low, q))
    if real_high is not None:
        high = min(high, _quantize_bound(real_high, q))
    return low, high


def _quantize_bound(real: float, q: Quantization) -> int:
    with np.errstate(over="ignore"):
        quotient = np.float32(real) / np.float32(q.scale)
    if not abs(float(quotient)) < 2**31:
        raise OverflowError(f"the bound {real} of the activation leaves int32 at scale {q.scale}")
    return q.zero_point + round_half_away(quotient)
