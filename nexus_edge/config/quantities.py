"""Money, times and sizes as people write them: an exact number and its unit. In the program they are integers of the smallest unit."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from nexus_edge.types import Bytes, MicroCredits

_WRITTEN: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([a-zA-Z]+)")

CREDITS: Final = {"cr": 1_000_000, "ucr": 1}
DURATIONS: Final = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1000, "ms": 1}
SIZES: Final = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}

AMOUNT: Final = 1 << 40
"""Micro-credits: what one amount of the mesh protocol can hold, a million credits."""
LONGEST: Final = 365 * 86_400_000
LARGEST: Final = 1 << 50


def parse(value: object, units: Mapping[str, int]) -> object:
    """The integer behind `5 cr`. What is no text is left to the type: a whole number is of the smallest unit. Raises `ValueError`."""
    if isinstance(value, bool | float):
        raise ValueError(f"write it with a unit, as in '5 {next(iter(units))}'")
    if not isinstance(value, str):
        return value
    written = _WRITTEN.fullmatch(value.strip())
    if written is None or written[2] not in units:
        raise ValueError(f"{value!r} is not a number with a unit: {', '.join(units)}")
    exact = Decimal(written[1]) * units[written[2]]
    if exact != int(exact):
        raise ValueError(f"{value!r} is no whole number of {min(units, key=lambda unit: units[unit])}")
    return int(exact)


def show(value: int, units: Mapping[str, int]) -> str:
    """The same, in the largest unit that gives a short number; `parse` reads it back."""
    for unit, size in units.items():
        exact = Decimal(value) / size
        if value and exact >= Decimal("0.01") and exact == round(exact, 3):
            return f"{exact.normalize():f} {unit}"
    return f"{value} {min(units, key=lambda unit: units[unit])}"


def _reader(units: Mapping[str, int]) -> Callable[[object], object]:
    return lambda value: parse(value, units)


def _writer(units: Mapping[str, int]) -> Callable[[int], str]:
    return lambda value: show(value, units)


def _described(units: Mapping[str, int], what: str) -> dict[str, Any]:
    return {
        "type": ["string", "integer"],
        "description": f"{what}: {', '.join(units)}; a bare integer is in {min(units, key=units.__getitem__)}",
    }


Credits = Annotated[
    MicroCredits,
    Field(ge=0, le=AMOUNT, strict=True),
    BeforeValidator(_reader(CREDITS)),
    PlainSerializer(_writer(CREDITS), when_used="json"),
    WithJsonSchema(_described(CREDITS, "an amount")),
]
"""Micro-credits, written `0.5 cr`."""

Duration = Annotated[
    int,
    Field(ge=1, le=LONGEST, strict=True),
    BeforeValidator(_reader(DURATIONS)),
    PlainSerializer(_writer(DURATIONS), when_used="json"),
    WithJsonSchema(_described(DURATIONS, "a duration")),
]
"""Milliseconds, written `5 min`."""

Size = Annotated[
    Bytes,
    Field(ge=0, le=LARGEST, strict=True),
    BeforeValidator(_reader(SIZES)),
    PlainSerializer(_writer(SIZES), when_used="json"),
    WithJsonSchema(_described(SIZES, "a size")),
]
"""Bytes, written `20 GiB`."""
