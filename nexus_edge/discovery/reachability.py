"""Whether a peer can be reached: `new -> up -> suspect -> down`, with hysteresis, and when to ask it again.

`apply` is pure. Times are monotonic seconds; `jitter` in [0, 1) is drawn by the caller, so that the same events give the same states.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, assert_never

FAILURES_TO_DOWN: Final = 3
DOWN_AFTER_S: Final = 10.0
"""The failures that take a peer down span this at least: a restart of the peer or of a switch is shorter."""
SUCCESSES_TO_UP: Final = 2
"""In a row: a link that lets every other packet through is not up."""
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_LAST_S: Final = 600.0
BACKOFF_SPREAD: Final = 0.5
"""A wait is between 3/4 and 5/4 of its nominal length, so that peers of a restarted node do not return at one moment."""
SETTLE_S: Final = 1.0
"""Between the first sign of life and the one that brings a lost peer up; also between two probes, however many hints come in."""


class State(StrEnum):
    """What is known of a peer."""

    NEW = "new"
    """Not enough answers yet."""
    UP = "up"
    SUSPECT = "suspect"
    """It was up and the last probe failed, or it was down and has answered once."""
    DOWN = "down"


@dataclass(frozen=True)
class Reachability:
    """Where a peer stands."""

    state: State = State.NEW
    failures: int = 0
    """In a row."""
    failing_since: float | None = None
    successes: int = 0
    """In a row, counted as far as they matter."""
    probed_at: float | None = None
    probe_at: float = 0.0


UNTRIED: Final = Reachability()
"""To be probed at once."""


@dataclass(frozen=True)
class Answered:
    """A request was answered; the next probe is `every` seconds away."""

    at: float
    every: float
    jitter: float


@dataclass(frozen=True)
class Failed:
    """No address of the peer answered."""

    at: float
    jitter: float


@dataclass(frozen=True)
class Stirred:
    """Something says that the state may have changed: an announcement, a goodbye, another network."""

    at: float


Event = Answered | Failed | Stirred


def apply(event: Event, before: Reachability) -> Reachability:
    """The state after an event."""
    match event:
        case Answered():
            return _answered(event, before)
        case Failed():
            return _failed(event, before)
        case Stirred():
            # What stirs is often early: a link that has just come back may route a second later. So the waits of a peer that is down begin again, those
            # of another one do not exceed what means down. Whoever makes up announcements gets no more probes for it than one each `SETTLE_S`.
            failures = 0 if before.state is State.DOWN else min(before.failures, FAILURES_TO_DOWN)
            earliest = event.at if before.probed_at is None else max(event.at, before.probed_at + SETTLE_S)
            return replace(before, failures=failures, probe_at=min(before.probe_at, earliest))
        case _:
            assert_never(event)


def _answered(event: Answered, before: Reachability) -> Reachability:
    successes = min(before.successes + 1, SUCCESSES_TO_UP)
    match before.state:
        case State.UP:
            state = State.UP
        case _ if successes >= SUCCESSES_TO_UP:
            state = State.UP
        case State.NEW:
            state = State.NEW
        case State.SUSPECT | State.DOWN:
            state = State.SUSPECT
        case _:
            assert_never(before.state)
    waits = {State.UP: _spread(event.every, event.jitter), State.NEW: 0.0}
    wait = waits.get(state, SETTLE_S)
    return Reachability(state, 0, None, successes, event.at, event.at + wait)


def _failed(event: Failed, before: Reachability) -> Reachability:
    failures = before.failures + 1
    since = event.at if before.failing_since is None else before.failing_since
    is_down = before.state is State.DOWN or (failures >= FAILURES_TO_DOWN and event.at - since >= DOWN_AFTER_S)
    trying = State.NEW if before.state is State.NEW else State.SUSPECT
    state = State.DOWN if is_down else trying
    doublings = min(failures - 1, 10)  # 2^10 s is beyond the last wait
    wait = min(BACKOFF_LAST_S, max(BACKOFF_FIRST_S, _spread(BACKOFF_FIRST_S * 2**doublings, event.jitter)))
    if not is_down and failures + 1 >= FAILURES_TO_DOWN:
        wait = min(wait, max(BACKOFF_FIRST_S, since + DOWN_AFTER_S - event.at))  # the probe that decides comes when it can decide
    return Reachability(state, failures, since, 0, event.at, event.at + wait)


def _spread(seconds: float, jitter: float) -> float:
    return seconds * (1 - BACKOFF_SPREAD / 2 + BACKOFF_SPREAD * jitter)
