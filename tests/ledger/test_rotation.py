"""Prefixes take turns at a newcomers' bucket that is short: worked numbers, and what must hold for all."""

from collections import Counter, deque
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.ledger.credit import CreditPolicy, Standing, room
from nexus_edge.ledger.rotation import WAIT_S, WAITING, Rotation, Waiting
from nexus_edge.types import MicroCredits

BUCKET = 1000
POLICY = CreditPolicy(*(MicroCredits(amount) for amount in (5000, BUCKET, 50_000, 10_000, 5000)))


def rotation(*wanted: tuple[str, int]) -> Rotation:
    return Rotation(tuple(Waiting(prefix, amount, 0.0) for prefix, amount in wanted))


@pytest.mark.parametrize(
    ("waiting", "taken", "asker", "expected"),
    [
        # Nobody waits: half of it, as far as it is there.
        ([], {}, "a", 500),
        ([], {"a": 200}, "a", 300),
        ([], {"a": 200, "b": 500, "c": 250}, "a", 50),
        # One other waits: half each; what it wants is kept for it.
        ([("b", 100)], {}, "a", 500),
        ([("b", 100)], {"a": 300, "c": 500}, "a", 100),
        # Two others: a third each. Who holds more than that draws no more.
        ([("b", 100), ("c", 100)], {}, "a", 333),
        ([("b", 100), ("c", 100)], {"a": 300}, "a", 33),
        ([("b", 100), ("c", 100)], {"a": 400}, "a", 0),
        # There is enough for one: it is the first one's.
        ([("b", 100), ("c", 100)], {"x": 900}, "b", 100),
        ([("b", 100), ("c", 100)], {"x": 900}, "c", 0),
        ([("b", 100), ("c", 100)], {"x": 900}, "a", 0),
        # Who wants more than there is, or more than its share, holds nobody up.
        ([("b", 200), ("c", 100)], {"x": 900}, "c", 100),
        ([("b", 100), ("c", 100)], {"b": 450, "x": 450}, "c", 100),
        # Who wants more than a prefix ever gets is not one of those who share.
        ([("b", 501), ("c", 501)], {}, "a", 500),
        # A bucket that twenty ask gives each the usual job, not a twentieth that is none.
        ([(f"p{number}", 100) for number in range(20)], {}, "p0", 100),
        ([(f"p{number}", 100) for number in range(20)], {}, "p9", 100),
        ([(f"p{number}", 100) for number in range(20)], {}, "p10", 0),
        ([(f"p{number}", 100) for number in range(20)], {"p0": 100}, "p0", 0),
    ],
)
def test_what_is_left_for_a_prefix(waiting: list[tuple[str, int]], taken: dict[str, int], asker: str, expected: int) -> None:
    assert rotation(*waiting).left(BUCKET, taken, asker) == expected


def test_a_place_is_kept_while_it_is_asked_for_and_given_up_by_being_served() -> None:
    waits = Rotation().short("a", 10, 0.0).short("b", 20, 1.0).short("a", 30, 2.0)
    assert [(one.prefix, one.wanted) for one in waits.waiting] == [("a", 30), ("b", 20)]
    assert [one.prefix for one in waits.at(1.0 + WAIT_S).waiting] == ["a"]
    assert [one.prefix for one in waits.served("a").short("a", 30, 3.0).waiting] == ["b", "a"]


def test_those_who_wait_are_counted_and_bounded() -> None:
    waits = Rotation()
    for number in range(WAITING + 10):
        waits = waits.short(f"p{number}", 1, 0.0)
    assert len(waits.waiting) == WAITING
    assert waits.waiting[0].prefix == "p0"
    assert waits.left(BUCKET, {}, "late") == min(BUCKET - WAITING, BUCKET // (WAITING + 1))
    assert waits.at(WAIT_S) == Rotation()


class Bucket:
    """One bucket and those who ask for it, as the worker's admission does it."""

    def __init__(self) -> None:
        self.rotation = Rotation()
        self.books: dict[bytes, Standing] = {}
        self.jobs: deque[tuple[bytes, int]] = deque()
        """Who drew what, the oldest first."""

    def ask(self, prefix: str, peer: bytes, price: int) -> bool:
        """Whether it is admitted."""
        asker = self.books.get(peer, Standing(peer, prefix, False, 0, 0, 0, 0, 0, 0))
        is_admitted = price <= room(asker, self.books.values(), POLICY, self.rotation)
        if is_admitted:
            self.books[peer] = replace(asker, reserved_in=asker.reserved_in + price)
            self.jobs.append((peer, price))
            self.rotation = self.rotation.served(prefix)
        else:
            self.rotation = self.rotation.short(prefix, asker.draws(price), 0.0)
        return is_admitted

    def repay(self) -> None:
        """The oldest job is paid."""
        peer, price = self.jobs.popleft()
        self.books[peer] = replace(self.books[peer], reserved_in=self.books[peer].reserved_in - price)

    def held(self, prefix: str) -> int:
        return sum(one.over for one in self.books.values() if one.prefix == prefix)


PREFIXES = 8
asks = st.tuples(st.integers(0, PREFIXES - 1), st.integers(0, 20), st.integers(BUCKET // 16, BUCKET // PREFIXES))


@given(st.lists(st.none() | asks, min_size=60, max_size=120))
def test_no_prefix_draws_more_than_its_share_while_others_wait(steps: list[tuple[int, int, int] | None]) -> None:
    bucket = Bucket()
    for step in steps:
        if step is None and bucket.jobs:
            bucket.repay()
        elif step is not None:
            number, identity, price = step
            prefix = f"p{number}"
            waiting = {one.prefix for one in bucket.rotation.waiting} | {prefix}
            is_admitted = bucket.ask(prefix, f"{prefix} {identity}".encode(), price)
            assert not is_admitted or bucket.held(prefix) <= BUCKET // max(2, len(waiting))
            assert is_admitted or prefix in {one.prefix for one in bucket.rotation.waiting}
            assert sum(map(bucket.held, {one.prefix for one in bucket.books.values()})) <= BUCKET


def served(identities: int, rounds: int = 400) -> Counter[str]:
    """How many jobs each of four prefixes gets, when one is paid a round and each has room for one in its share; one of them asks first, with so many identities."""
    bucket, count = Bucket(), Counter[str]()
    for _ in range(rounds):
        for number in range(identities):
            count["many"] += bucket.ask("many", f"many {number}".encode(), 200)
        for prefix in ("x", "y", "z"):
            count[prefix] += bucket.ask(prefix, prefix.encode(), 200)
        bucket.repay()
    return count


@pytest.mark.parametrize("identities", [1, 10, 100])
def test_many_identities_in_one_prefix_gain_nothing(identities: int) -> None:
    count = served(identities)
    assert count.total() == 403, "what is paid is drawn again at once, while somebody waits"
    assert max(count.values()) - min(count.values()) <= 2, count


def test_whoever_waits_is_served_in_turn() -> None:
    bucket = Bucket()
    names = [f"p{number}" for number in range(9)]
    for _ in range(5):
        assert bucket.ask("first", b"first", 100)
    assert [bucket.ask(name, name.encode(), 100) for name in names] == 5 * [True] + 4 * [False]
    order = []
    for _ in range(25):
        bucket.repay()
        # In which order they ask does not matter, and who was there before has no right to more.
        order += [name for name in reversed(["first", *names]) if bucket.ask(name, name.encode(), 100)]
    assert len(order) == 25
    assert set(order[:4]) == {"p5", "p6", "p7", "p8"}
    for begin in range(16):
        assert len(set(order[begin : begin + 10])) == 10, order
