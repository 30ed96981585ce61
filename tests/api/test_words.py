"""Numbers as screens write them."""

import pytest

from nexus_edge.api import words

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("ucr", "text"),
    [
        (31_000, "+0.0310"),
        (-118_000, f"{MINUS}0.1180"),
        (0, "0.0000"),
        (1, "+<0.0001"),
        (-49, f"{MINUS}<0.0001"),
        (50, "+0.0001"),
        (12_345_678, "+12.3457"),
        (None, "—"),
    ],
)
def test_credit(ucr: int | None, text: str) -> None:
    assert words.credit(ucr) == text


def test_credit_without_a_sign() -> None:
    assert words.credit(31_000, signed=False) == "0.0310"


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (2.2, "2.2 ms"),
        (0.02, "<0.1 ms"),
        (0, "0.0 ms"),
        (9.96, "10 ms"),
        (96, "96 ms"),
        (143, "143 ms"),
        (210, "0.21 s"),
        (3600, "3.60 s"),
        (14_800, "14.8 s"),
        (65_000, "1:05"),
        (3_600_000, "1 h 0 min"),
        (273_600_000, "3 d 4 h"),
        (None, "—"),
    ],
)
def test_times(ms: float | None, text: str) -> None:
    assert words.time(ms) == text


def test_forecasts() -> None:
    assert words.time(3900, forecast=True) == "~3.90 s"


@pytest.mark.parametrize(("ms", "text"), [(1300, "0:02"), (0, "0:00"), (12_000, "0:12"), (None, ""), (7_200_000, "2 h 0 min")])
def test_what_is_left(ms: float | None, text: str) -> None:
    assert words.left(ms) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (499_000, "487 KiB"), (3_565_158, "3.4 MiB"), (9 << 30, "9.0 GiB"), (None, "—")]
)
def test_sizes(count: float | None, text: str) -> None:
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.004, "0.4 %"), (0.063, "6.3 %"), (1.05, "105 %"), (0.78, "78 %"), (0.0, "0 %"), (None, "—")]
)
def test_percent(fraction: float | None, text: str) -> None:
    assert words.percent(fraction) == text


def test_counts() -> None:
    assert words.count(18_022) == "18 022"
