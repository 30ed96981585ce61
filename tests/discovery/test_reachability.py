"""The state machine, by a table of worked sequences and by what no sequence of events can do."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.discovery.reachability import (
    BACKOFF_FIRST_S,
    BACKOFF_LAST_S,
    DOWN_AFTER_S,
    FAILURES_TO_DOWN,
    SETTLE_S,
    SUCCESSES_TO_UP,
    UNTRIED,
    Answered,
    Event,
    Failed,
    Reachability,
    State,
    Stirred,
    apply,
)

ROUNDING = 1e-6
MIDDLE = 0.5
"""The jitter that leaves a wait at its nominal length."""


def ok(at: float) -> Answered:
    return Answered(at, 15.0, MIDDLE)


def no(at: float) -> Failed:
    return Failed(at, MIDDLE)


def after(*events: Event) -> Reachability:
    state = UNTRIED
    for event in events:
        state = apply(event, state)
    return state


@pytest.mark.parametrize(
    ("events", "state", "next_probe"),
    [
        ((), "new", 0.0),
        ((ok(5),), "new", 5.0),
        ((ok(5), ok(5)), "up", 20.0),
        ((no(5),), "new", 6.0),
        ((no(0), no(1), no(3), no(7)), "new", 10.0),
        ((no(0), no(1), no(3), no(7), no(10)), "down", 26.0),
        ((ok(0), no(1), ok(2)), "new", 2.0),
        ((ok(0), ok(0), no(15)), "suspect", 16.0),
        ((ok(0), ok(0), no(15), no(16), no(18)), "suspect", 22.0),
        ((ok(0), ok(0), no(15), no(16), no(18), no(22)), "suspect", 25.0),
        ((ok(0), ok(0), no(15), no(16), no(18), no(22), no(25)), "down", 41.0),
        ((ok(0), ok(0), no(15), ok(16)), "suspect", 17.0),
        ((ok(0), ok(0), no(15), ok(16), ok(17)), "up", 32.0),
        ((ok(0), ok(0), no(15), no(20)), "suspect", 22.0),
        ((no(0), no(5), no(10), ok(20)), "suspect", 21.0),
        ((no(0), no(5), no(10), ok(20), no(21)), "suspect", 22.0),
        ((no(0), no(5), no(10), ok(20), ok(21)), "up", 36.0),
        ((no(0), no(5), no(10), Stirred(11)), "down", 11.0),
        ((no(0), no(5), no(10), Stirred(10.2)), "down", 11.0),
        ((ok(0), ok(0), Stirred(3)), "up", 3.0),
    ],
)
def test_worked_sequences(events: tuple[Event, ...], state: str, next_probe: float) -> None:
    found = after(*events)
    assert (found.state, found.probe_at) == (state, next_probe)


def test_waits_double_up_to_ten_minutes() -> None:
    state, at, waits = UNTRIED, 0.0, []
    for _ in range(16):
        state = apply(no(at), state)
        waits.append(state.probe_at - at)
        at = state.probe_at
    assert waits == [1, 2, 4, 3, 16, 32, 64, 128, 256, 512, 600, 600, 600, 600, 600, 600]


def test_an_announcement_ends_long_waits() -> None:
    long_down = replace(after(no(0), no(5), no(10)), failures=20, probe_at=5000.0)
    stirred = apply(Stirred(100), long_down)
    assert stirred.probe_at == 100


def test_an_announcement_that_comes_before_the_link_is_asked_about_again_soon() -> None:
    state, at, waits = apply(Stirred(100), replace(after(no(0), no(5), no(10)), failures=20, probe_at=5000.0)), 100.0, []
    for _ in range(4):
        state = apply(no(at), state)
        assert state.state is State.DOWN
        waits.append(state.probe_at - at)
        at = state.probe_at
    assert waits == [1, 2, 4, 8]


def test_announcements_do_not_keep_a_peer_from_being_down() -> None:
    assert after(ok(0), ok(0), no(1), Stirred(2), no(3), Stirred(4), no(5), Stirred(6), no(12)).state is State.DOWN


events = st.lists(st.tuples(st.sampled_from(["ok", "no", "stir"]), st.floats(0, 700), st.floats(0, 1, exclude_max=True)), max_size=40)


@given(events)
def test_what_no_sequence_can_do(steps: list[tuple[str, float, float]]) -> None:
    state, at = UNTRIED, 0.0
    successes = failures = 0
    failing_since = 0.0
    for kind, wait, jitter in steps:
        at += wait
        before = state
        makers: dict[str, Event] = {"ok": Answered(at, 15.0, jitter), "no": Failed(at, jitter), "stir": Stirred(at)}
        state = apply(makers[kind], before)
        successes = successes + 1 if kind == "ok" else 0 if kind == "no" else successes
        failing_since = at if kind == "no" and failures == 0 else failing_since
        failures = failures + 1 if kind == "no" else 0 if kind == "ok" else failures

        came_up = state.state is State.UP and before.state is not State.UP
        went_down = state.state is State.DOWN and before.state is not State.DOWN
        assert not came_up or successes >= SUCCESSES_TO_UP
        assert not went_down or (failures >= FAILURES_TO_DOWN and at - failing_since >= DOWN_AFTER_S)
        assert state.state is not State.NEW or before.state is State.NEW
        assert kind != "stir" or (state.state is before.state and state.probe_at <= max(before.probe_at, at + SETTLE_S))
        assert kind != "no" or BACKOFF_FIRST_S - ROUNDING <= state.probe_at - at <= BACKOFF_LAST_S + ROUNDING
        assert kind != "no" or state.state is not State.UP
