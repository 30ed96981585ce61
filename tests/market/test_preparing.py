"""Models that strangers bring take no more of this machine than their ration."""

from contextlib import ExitStack

import pytest

from nexus_edge.market.preparing import MODELS, Rations
from nexus_edge.transport import Caller
from nexus_edge.types import NodeId
from nexus_edge.wire.refusals import Code, Refusal


def caller(name: int, address: str = "203.0.113.7") -> Caller:
    return Caller(NodeId(bytes([name]) * 32), address, 1)


def test_strangers_take_turns_and_those_with_a_line_need_none() -> None:
    rations = Rations()
    with ExitStack() as held:
        held.enter_context(rations.turn(caller(1), 0))
        with pytest.raises(Refusal) as refused, rations.turn(caller(2, "198.51.100.1"), 0):
            pass
        assert (refused.value.code, bool(refused.value.retry_ms)) == (Code.BUSY, True)
        held.enter_context(rations.turn(caller(3), 1))
        held.enter_context(rations.turn(caller(4), 1))
    with rations.turn(caller(2, "198.51.100.1"), 0):
        pass


def test_names_cost_nothing_so_a_prefix_has_one_ration() -> None:
    rations = Rations()
    for name in range(MODELS):
        with rations.turn(caller(name), 0):
            pass
    with pytest.raises(Refusal, match="at your address") as refused, rations.turn(caller(99), 0):
        pass
    assert refused.value.code is Code.BUSY
    assert refused.value.retry_ms is not None
    with rations.turn(caller(99), 1):
        pass
    with rations.turn(caller(99, "198.51.100.1"), 0):
        pass


def test_a_turn_ends_with_an_error_too() -> None:
    rations = Rations()
    with pytest.raises(ZeroDivisionError), rations.turn(caller(1), 0):
        raise ZeroDivisionError
    with rations.turn(caller(1), 0):
        pass
