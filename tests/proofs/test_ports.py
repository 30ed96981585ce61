"""Conversions at the edges of a model, beside the runtime's formula in exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nexus_edge.errors import BadInput
from nexus_edge.proofs.ports import Port, to_integers

INT8 = np.dtype(np.int8)


def port(
    *, scale: float | None = 0.1, zero_point: int = 3, storage: str = "int8", float_edge: bool = True, shape: tuple[int, ...] = (4,)
) -> Port:
    return Port("x", np.dtype(storage), shape, scale, zero_point, float_edge)


def floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def half_away(value: Fraction) -> int:
    rounded = int(abs(value) + Fraction(1, 2))
    return rounded if value >= 0 else -rounded


@given(
    values=st.lists(st.floats(min_value=-1000, max_value=1000, width=32), min_size=4, max_size=4),
    scale=st.floats(min_value=2.0**-20, max_value=16, width=32),
    zero_point=st.integers(min_value=-128, max_value=127),
)
def test_quantisation_is_the_runtime_formula(values: list[float], scale: float, zero_point: int) -> None:
    array = floats(*values)
    quotients = array / np.float32(scale)
    expected = [min(127, max(-128, half_away(Fraction(float(q))) + zero_point)) for q in quotients]
    assert port(scale=scale, zero_point=zero_point).to_integers(array).tolist() == expected


def test_ties_are_rounded_away_from_zero() -> None:
    assert port(scale=1.0, zero_point=0).to_integers(floats(0.5, -0.5, 1.5, -2.5)).tolist() == [1, -1, 2, -3]


def test_the_float_just_below_a_half_is_rounded_down() -> None:
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    assert port(scale=1.0, zero_point=0).to_integers(floats(below, -below, 0, -0.0)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38, 2.0**31])
def test_values_without_a_defined_quantisation_are_refused(bad: float) -> None:
    with pytest.raises(BadInput, match="no defined quantisation"):
        port(scale=1.0).to_integers(floats(0, 0, 0, bad))


@given(st.integers(min_value=-128, max_value=127), st.floats(min_value=2.0**-20, max_value=16, width=32))
def test_dequantised_values_quantise_to_themselves(level: int, scale: float) -> None:
    edge = port(scale=scale, shape=(1,))
    integers = np.array([level], INT8)
    assert edge.to_integers(edge.from_integers(integers)).tolist() == [level]


def test_dequantisation_is_one_rounded_product() -> None:
    edge = port(scale=float(np.float32(0.1)), zero_point=-128, shape=(1,))
    expected = np.float32(float(np.float32(0.1)) * 255)
    assert edge.from_integers(np.array([127], INT8)).tolist() == [expected]


def test_uint8_edges_use_their_whole_range() -> None:
    edge = port(scale=1.0, zero_point=0, storage="uint8")
    assert edge.to_integers(floats(-5, 0, 255, 900)).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(4, np.float64),
        np.zeros(4, np.int8),
        np.zeros((4, 1), np.float32),
        np.zeros(5, np.float32),
        np.zeros(4, ">f4"),
    ],
)
def test_other_types_and_shapes_are_refused(array: NDArray[np.float32]) -> None:
    with pytest.raises(BadInput, match=r"expected float32 \[4\], got"):
        port().to_integers(array)


def test_integers_are_taken_as_they_are() -> None:
    array = np.array([-128, 0, 1, 127], INT8)
    assert port(float_edge=False).to_integers(array).tolist() == array.tolist()
    with pytest.raises(BadInput, match=r"expected int8 \[4\], got float64 \[4\]"):
        port(float_edge=False).to_integers(np.array([127.9, 0, 0, 0]))


def test_the_number_of_arrays_must_fit() -> None:
    with pytest.raises(BadInput, match="expected 1"):
        to_integers([port()], [])
