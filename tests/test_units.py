import pytest

from nexus_edge.units import show_name, show_size, show_time


@pytest.mark.parametrize(("ms", "text"), [(0.04, "0.0 ms"), (12.34, "12.3 ms"), (999.9, "999.9 ms"), (1000, "1.00 s"), (65_432, "65.43 s")])
def test_times(ms: float, text: str) -> None:
    assert show_time(ms) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (273_400, "273.4 KB"), (1_500_000, "1.5 MB"), (2_340_000_000, "2.34 GB")],
)
def test_sizes(count: int, text: str) -> None:
    assert show_size(count) == text


def test_names_cannot_steer_a_terminal() -> None:
    assert show_name("model/conv\x1b[2J") == "model/conv\N{REPLACEMENT CHARACTER}[2J"
    assert show_name("a" * 61) == "a" * 59 + "…"
    assert show_name("a" * 60) == "a" * 60
