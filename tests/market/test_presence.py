"""What a node says of itself is believed as newer, whatever its clock does."""

import pytest

from nexus_edge.discovery import PeerDirectory
from nexus_edge.market import presence
from nexus_edge.market.presence import Presence, Self
from nexus_edge.types import UnixMs
from tests.support.books import A


def test_a_clock_that_was_set_back_makes_no_record_older(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = [1000, 2000]
    clock = [2_000_000_000_000, 1_000_000_000_000]
    monkeypatch.setattr(presence, "now_ms", lambda: UnixMs(clock[0]))
    said = Presence(A, PeerDirectory(A.id, "home"), lambda: Self("", "home", "", (), (), (), (), rates[0], 1))
    before, caps = said.record().object, said.caps().object
    del clock[0], rates[0]
    after = said.record().object
    assert after.at < before.at
    assert after.seq > before.seq
    assert said.caps().object.seq > caps.seq
