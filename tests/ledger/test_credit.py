"""Whom a worker serves before it is paid: worked numbers, and what must hold for all."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.ledger.credit import CreditPolicy, Standing, decayed, room, write_offs
from nexus_edge.types import MicroCredits

POLICY = CreditPolicy(*(MicroCredits(amount) for amount in (5000, 500, 50_000, 10_000, 5000)))
NOBODY = Standing(b"n", "10.0.0.1", True, 0, 0, 0, 0, 0, 0)
HOME: dict[str, Any] = {"prefix": "10.0.0.9", "private": True}
FAR: dict[str, Any] = {"prefix": "203.0.113.0/24", "private": False}


def standing(peer: bytes = b"r", **changes: Any) -> Standing:
    return replace(NOBODY, peer=peer, **changes)


@pytest.mark.parametrize(
    ("changes", "exposure", "line", "over"),
    [
        ({}, 0, 0, 0),
        ({"owed": 300, "reserved_in": 40}, 340, 0, 340),
        ({"owed": -300, "reserved_in": 40}, 0, 0, 0),
        # Of the 300 that we owe it, 280 are locked as its stake and cannot be drawn.
        ({"owed": -300, "reserved_in": 40, "locked_for": 280}, 20, 0, 20),
        ({"owed": 300, "granted": 100, "verified": 403}, 300, 200, 100),
        ({"owed": 300, "verified": 2000}, 300, 500, 0),
        ({"owed": 300, "written_off": 120}, 180, 0, 180),
    ],
)
def test_exposure_line_and_overflow(changes: dict[str, Any], exposure: int, line: int, over: int) -> None:
    one = standing(**changes)
    assert (one.exposure, one.line, one.over) == (exposure, line, over)


@pytest.mark.parametrize(
    ("asker", "others", "expected"),
    [
        # A newcomer at home has half of the bucket, one prefix never more.
        (standing(**HOME), [], 2500),
        (standing(**FAR), [], 250),
        # Its line, and what we owe it, come on top.
        (standing(**FAR, granted=100, verified=400), [], 450),
        (standing(**FAR, owed=-70), [], 320),
        (standing(**FAR, owed=-70, locked_for=70), [], 250),
        # What others of the bucket have drawn beyond their lines is gone, whoever they are.
        (standing(**FAR), [standing(b"x", prefix="198.51.100.0/24", private=False, owed=300)], 200),
        (standing(**FAR), [standing(b"x", prefix="198.51.100.0/24", private=False, owed=300, granted=290)], 250),
        (standing(**FAR), [standing(b"x", **FAR, owed=240)], 10),
        (standing(**FAR), [standing(b"x", **HOME, owed=5000)], 250),
        # An empty bucket leaves the line.
        (standing(**FAR, granted=30), [standing(b"x", prefix="198.51.100.0/24", private=False, owed=500)], 30),
        # All together stay within the cap, but for what we owe.
        (standing(**FAR, granted=90_000), [standing(b"x", **HOME, owed=49_000, granted=49_000)], 1000),
        (standing(**FAR, owed=-77, granted=90_000), [standing(b"x", **HOME, owed=51_000, granted=51_000)], 77),
        # What is owed already is used up first.
        (standing(**FAR, owed=200), [], 50),
        (standing(**FAR, owed=9000), [], 0),
        # Its own row among the others does not count twice.
        (standing(**FAR, owed=200), [standing(**FAR, owed=200)], 50),
    ],
)
def test_room(asker: Standing, others: list[Standing], expected: int) -> None:
    assert room(asker, others, POLICY) == expected


@pytest.mark.parametrize(
    ("value", "days", "expected"),
    [(129, 1000, 129), (130, 1, 129), (1_000_000, 0, 1_000_000), (1_000_000, 1, 992_308), (1_000_000, 90, 499_116), (1_000_000, -5, 1_000_000)],
)  # fmt: skip
def test_value_is_forgotten_with_a_half_life_of_90_days(value: int, days: int, expected: int) -> None:
    assert decayed(value, days) == expected


def test_a_tenth_of_a_bucket_is_written_off_a_day() -> None:
    old = standing(b"a", **HOME, owed=2000)
    young = standing(b"b", **HOME, owed=2000)
    lent = standing(b"c", **HOME, owed=2000, granted=2000)
    far = standing(b"d", **FAR, owed=20)
    assert write_offs([young, old, lent, far], {b"b": 2000}, POLICY) == {b"a": 500, b"d": 20}
    assert write_offs([young], {b"b": 1900}, POLICY) == {b"b": 100}


amounts = st.integers(0, 3000)
standings = st.builds(
    Standing,
    peer=st.sampled_from([b"a", b"b", b"c", b"d", b"e"]),
    prefix=st.sampled_from(["10.0.0.1", "10.0.0.2", "203.0.113.0/24"]),
    private=st.booleans(),
    owed=st.integers(-3000, 3000),
    reserved_in=amounts,
    locked_for=amounts,
    written_off=st.just(0),
    granted=amounts,
    verified=amounts,
)


@given(standings, st.lists(standings, max_size=6, unique_by=lambda one: one.peer), st.integers(0, 8000))
def test_what_is_admitted_stays_within_every_bound(asker: Standing, others: list[Standing], price: int) -> None:
    rest = [one for one in others if one.peer != asker.peer]
    left = room(asker, rest, POLICY)
    after = replace(asker, reserved_in=asker.reserved_in + min(price, left))
    bucket = POLICY.private_bucket if asker.private else POLICY.public_bucket
    same = [one for one in rest if one.private == asker.private]
    if left:
        assert after.over == 0 or sum(one.over for one in same) + after.over <= bucket
        assert after.over == 0 or sum(one.over for one in same if one.prefix == asker.prefix) + after.over <= bucket // 2
        assert after.exposure == 0 or sum(one.exposure for one in rest) + after.exposure <= POLICY.cap
    # Not one more than that is refused without a reason.
    more = replace(asker, reserved_in=asker.reserved_in + left + 1)
    exceeds_bucket = sum(one.over for one in same) + more.over > bucket
    exceeds_half = sum(one.over for one in same if one.prefix == asker.prefix) + more.over > bucket // 2
    exceeds_cap = sum(one.exposure for one in rest) + more.exposure > POLICY.cap
    assert exceeds_bucket or exceeds_half or exceeds_cap


@given(st.lists(amounts, max_size=8), st.integers(1, 400))
def test_many_identities_draw_no_more_than_one(prices: list[int], identities: int) -> None:
    """However an attacker in one prefix spreads what it asks for, it gets half of the bucket at most."""
    drawn: dict[bytes, Standing] = {}
    for number, price in enumerate(prices * 4):
        peer = bytes([number % identities % 256])
        asker = drawn.get(peer, standing(peer, **FAR))
        if price <= room(asker, drawn.values(), POLICY):
            drawn[peer] = replace(asker, reserved_in=asker.reserved_in + price)
    assert sum(one.exposure for one in drawn.values()) <= POLICY.public_bucket // 2


@given(st.integers(0, 2**50), st.integers(0, 400), st.integers(0, 400))
def test_forgetting_depends_on_days_alone(value: int, one: int, other: int) -> None:
    assert decayed(decayed(value, one), other) == decayed(value, one + other)
    assert decayed(value, one) <= value
