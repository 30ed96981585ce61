"""Amounts, durations and sizes: exact both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.config.quantities import CREDITS, DURATIONS, SIZES, parse, show


@pytest.mark.parametrize(
    ("text", "units", "value"),
    [
        ("5 cr", CREDITS, 5_000_000),
        ("0.0310cr", CREDITS, 31_000),
        (" 1 ucr ", CREDITS, 1),
        ("5 min", DURATIONS, 300_000),
        ("0.5 s", DURATIONS, 500),
        ("20 GiB", SIZES, 20 << 30),
        ("1.5 KiB", SIZES, 1536),
    ],
)
def test_worked_quantities(text: str, units: dict[str, int], value: int) -> None:
    assert parse(text, units) == value


@pytest.mark.parametrize(
    "text", ["", "5", "cr", "-1 cr", "+1 cr", "1e3 cr", "1,5 cr", "5 CR", "5 €", "0.0000001 cr", "٣ cr", "1" * 16 + " cr", "nan cr"]
)
def test_texts_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a number with a unit|is no whole number of ucr"):
        parse(text, CREDITS)


@pytest.mark.parametrize("units", [CREDITS, DURATIONS, SIZES], ids=["credits", "durations", "sizes"])
@given(value=st.integers(0, 1 << 40))
def test_what_is_shown_is_read_again(units: dict[str, int], value: int) -> None:
    assert parse(show(value, units), units) == value
