"""Where commits are killed: a test says it with `killed_at`, so that no commit can be forgotten."""

from collections.abc import Callable
from typing import Any, Final

import pytest

POINTS: Final = ("before-flush", "after-flush", "before-send")
KILLED: Final[set[str]] = set()
"""Names of the commits that tests are killed at, once their modules are imported."""


def killed_at(*rows: str | tuple[Any, ...], arguments: str = "name") -> Callable[[Any], Any]:
    """Run a test at each point of each commit. A row is a commit's name, or the values of `arguments`, of which one is `name`."""
    place = arguments.split(",").index("name")
    KILLED.update(row if isinstance(row, str) else row[place] for row in rows)

    def mark(test: Any) -> Any:
        return pytest.mark.parametrize("point", POINTS)(pytest.mark.parametrize(arguments, rows)(test))

    return mark
