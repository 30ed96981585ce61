"""Numbers, times and amounts as screens and commands write them."""

from datetime import datetime
from typing import Final

MINUS: Final = "\N{MINUS SIGN}"
UNKNOWN: Final = "—"
PLACE: Final = 100
"""Micro-credits of the last decimal that is shown."""


def credit(ucr: int | None, *, signed: bool = True) -> str:
    """Credits with four decimals and a sign; zero has none."""
    if ucr is None:
        return UNKNOWN
    if ucr == 0:
        return "0.0000"
    sign = (MINUS if ucr < 0 else "+") if signed else ""
    places = (abs(ucr) + PLACE // 2) // PLACE
    return f"{sign}{places // 10_000}.{places % 10_000:04}" if places else f"{sign}<0.0001"


def time(ms: float | None, *, forecast: bool = False) -> str:
    """A duration in two or three digits."""
    if ms is None:
        return UNKNOWN
    return ("~" if forecast else "") + _time(ms)


def left(ms: float | None) -> str:
    """What is left, as a clock shows it."""
    if ms is None:
        return ""
    seconds = -(-int(ms) // 1000)
    return f"{seconds // 60}:{seconds % 60:02}" if seconds < 3600 else _long(seconds)


def size(count: float | None) -> str:
    """Bytes with a binary unit."""
    if count is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{_digits(count) if unit != 'B' else int(count)} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def of(used: float | None, total: float | None) -> str:
    """An amount of a known whole, in GiB."""
    if used is None or total is None:
        return UNKNOWN
    return f"{used / (1 << 30):.1f}/{total / (1 << 30):.1f} GiB"


def percent(fraction: float | None) -> str:
    """No decimals above ten."""
    if fraction is None:
        return UNKNOWN
    hundredths = 100 * fraction
    return f"{hundredths:.0f} %" if hundredths >= 10 or hundredths == 0 else f"{hundredths:.1f} %"


def share(fraction: float | None) -> str:
    """A part in percent; from ten times on how many times as much."""
    return f"{fraction:.0f} times" if fraction is not None and fraction >= 10 else percent(fraction)


def count(number: int) -> str:
    """A whole number, thousands apart."""
    return f"{number:,}".replace(",", " ")


def clock(at: datetime | None) -> str:
    """Hours and minutes on this machine's clock."""
    return "" if at is None else at.astimezone().strftime("%H:%M")


def day(at: datetime) -> str:
    """A day on this machine's clock."""
    return at.astimezone().strftime("%Y-%m-%d")


def _time(ms: float) -> str:
    if 0 < ms < 0.05:
        return "<0.1 ms"
    if ms < 200:
        return f"{_digits(ms)} ms"
    seconds = ms / 1000
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return left(ms) if seconds < 3600 else _long(int(seconds))


def _long(seconds: int) -> str:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    return f"{days} d {hours % 24} h" if days else f"{hours} h {minutes % 60} min"


def _digits(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 else f"{number:.0f}"
