from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.proofs.importers.quantization import (
    Quantization,
    activation_range,
    is_float_rounding,
    mean_multiplier,
    quantize_multiplier,
    rescale,
    rescale_once,
)

reals = st.floats(2.0**-30, 2.0**20)


def _half_away(x: Fraction) -> int:
    return floor(x + Fraction(1, 2)) if x >= 0 else -floor(-x + Fraction(1, 2))


@given(reals)
def test_multiplier_is_the_nearest_with_31_bits(real: float) -> None:
    m, e = quantize_multiplier(real)
    assert 1 << 30 <= m < 1 << 31
    assert abs(Fraction(m) / 2**31 / Fraction(2) ** e - Fraction(real)) <= Fraction(real) / 2**30


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (1.0, (1 << 30, -1)),
        (0.5, (1 << 30, 0)),
        (1 - 2.0**-40, (1 << 30, -1)),
        (2.0**-32, (1 << 30, 31)),
        (2.0**-33, (0, 0)),
        (0.0, (0, 0)),
    ],
)
def test_multiplier_at_the_ends(real: float, expected: tuple[int, int]) -> None:
    assert quantize_multiplier(real) == expected


@pytest.mark.parametrize("real", [2.0**31, 1e300, float("inf"), float("nan")])
def test_huge_multipliers_are_refused(real: float) -> None:
    with pytest.raises(OverflowError):
        quantize_multiplier(real)


@given(st.floats(2.0**-30, 0.999), st.integers(-(2**31), 2**31 - 1))
def test_rescale_rounds_twice(real: float, acc: int) -> None:
    m, e = quantize_multiplier(real)
    high = floor(Fraction(acc * m, 2**31) + Fraction(1, 2))
    assert int(rescale(np.array([acc]), (m, e))[0]) == _half_away(Fraction(high, 2**e))


@given(st.floats(2.0**-30, 0.999), st.integers(-(2**31), 2**31 - 1))
def test_rescale_once_rounds_once(real: float, acc: int) -> None:
    m, e = quantize_multiplier(real)
    assert int(rescale_once(np.array([acc]), (m, e))[0]) == floor(Fraction(acc * m, 2 ** (31 + e)) + Fraction(1, 2))


def test_left_shift_out_of_int32_is_refused() -> None:
    assert int(rescale(np.array([1 << 20]), (1 << 30, -10))[0]) == 1 << 29
    with pytest.raises(OverflowError):
        rescale(np.array([1 << 21]), (1 << 30, -10))


@given(st.floats(2.0**-12, 2.0**-4), st.integers(-3, 3))
def test_float_rounding_is_decided_by_the_steps(real: float, step: int) -> None:
    m, e = quantize_multiplier(real)
    values, accs = (-20, 20), np.arange(-(1 << 18), 1 << 18)
    scaled = accs * real
    expected = np.trunc(scaled) + np.sign(scaled) * (np.abs(scaled - np.trunc(scaled)) >= 0.5)
    ours = rescale_once(accs, (m + step, e))
    equal = bool(np.all(np.clip(ours, -21, 20) == np.clip(expected, -21, 20)))
    assert is_float_rounding(rescale_once, (m + step, e), real, values) == equal


@given(st.floats(0.01, 100), st.integers(1, 1 << 20))
def test_mean_multiplier_folds_the_count(real: float, count: int) -> None:
    m, e = mean_multiplier(real, count)
    exact = Fraction(real) / count
    assert 0 < m < 1 << 31
    assert exact * (1 - Fraction(1, 2**28)) <= Fraction(m) / 2**31 / Fraction(2) ** e <= exact * (1 + Fraction(1, 2**28))


@pytest.mark.parametrize(
    ("activation", "zero", "expected"),
    [(0, 3, (-128, 127)), (1, 3, (3, 127)), (3, 3, (3, 123)), (3, 100, (100, 127)), (2, 3, (-17, 23)), (1, -128, (-128, 127))],
)
def test_activation_ranges(activation: int, zero: int, expected: tuple[int, int]) -> None:
    assert activation_range(activation, Quantization("int8", float(np.float32(0.05)), zero)) == expected


def test_activation_bound_rounds_half_away_in_float32() -> None:
    # 6 / 4 = 1.5 and 1 / 0.4 = 2.5 (in float32: 2.5 exactly).
    assert activation_range(3, Quantization("int8", 4.0, 0)) == (0, 2)
    assert activation_range(2, Quantization("int8", float(np.float32(0.4)), 0)) == (-3, 3)


def test_unknown_activations_have_no_range() -> None:
    assert activation_range(4, Quantization("int8", 1.0, 0)) is None
    with pytest.raises(OverflowError):
        activation_range(3, Quantization("int8", 1e-20, 0))
