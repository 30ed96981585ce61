"""Reference runtimes, each started once."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.oracle import Oracle
from tests.support.oracle_env import Unavailable

GetOracle = Callable[[str], Oracle]


@pytest.fixture(scope="session")
def oracle() -> Iterator[GetOracle]:
    """The runtime of some semantics; skips where it has no wheel for this Python."""
    started: dict[str, Oracle] = {}

    def get(semantics: str) -> Oracle:
        if semantics not in started:
            try:
                started[semantics] = Oracle(semantics)
            except Unavailable as why:
                pytest.skip(f"{semantics} cannot be installed here: {why}")
        return started[semantics]

    yield get
    for one in started.values():
        one.close()
