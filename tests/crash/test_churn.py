"""Random kills of busy nodes: no job without a receipt or a reasoned end, nothing paid twice, books equal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.churn import assert_flat, churn
from tests.support.processes import Process


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Process]]:
    """Three nodes that know each other."""
    found = [Process(tmp_path, name) for name in ("alder", "birch", "cedar")]
    for node in found:
        node.start()
    for node in found:
        node.peers = [other for other in found if other is not node]
        node.kill()
        node.start()
    yield found
    for node in found:
        node.close()


@pytest.mark.timeout(900)
def test_two_hundred_kills_of_a_busy_pair(nodes: list[Process]) -> None:
    alder, birch, cedar = nodes
    cedar.kill()
    for node in (alder, birch):
        node.peers = [other for other in (alder, birch) if other is not node]
        node.kill()
        node.start()
    tally = churn([alder, birch], [alder, birch], kills=200, every_s=(0.0, 0.6), jobs=100, within_s=600, seed=1)
    assert tally.kills == 200
    assert tally.settled >= 100, tally.reasons


@pytest.mark.timeout(600)
def test_a_minute_of_churn_between_three(nodes: list[Process]) -> None:
    tally = churn(nodes, nodes[1:], kills=40, every_s=(1.0, 3.0), jobs=10_000, within_s=60, seed=2)
    assert tally.kills >= 15
    assert_flat(tally.memory["alder"], growth_kib=16 * 1024)
    assert tally.settled >= 100, tally.reasons
