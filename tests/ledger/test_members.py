"""Fleets in the ledger: one line for all members, who belongs to whom, and what comes of it when a certificate ends."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.clock import now_ms
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import CreditPolicy, Damaged, Group, Ledger, NoCredit, members, restore_backup, schema
from nexus_edge.ledger.credit import CREDIT, Standing, room, share, write_offs
from nexus_edge.ledger.ledger import FILE
from nexus_edge.ledger.looking import verify
from nexus_edge.types import MicroCredits, NodeId, UnixMs
from nexus_edge.wire.limits import INTEGER
from nexus_edge.wire.refusals import Code, Refusal
from tests.support.books import A, B, lease
from tests.support.fleets import DAY_MS, OWNER, RIVAL, certificate, serving

C = NodeKey.from_seed(b"c" * 32)
POLICY = CreditPolicy(*(MicroCredits(amount) for amount in (5000, 500, 50_000, 10_000, 5000)))
HOME, AWAY = Group(OWNER.id, "home", MicroCredits(1000)), Group(RIVAL.id, "away", MicroCredits(700))
OPEN = Group(OWNER.id, "open")


def standing(peer: bytes, group: Group | None = HOME, **changes: Any) -> Standing:
    return replace(Standing(peer, "203.0.113.0/24", False, 0, 0, 0, 0, 0, 0, group), **changes)


@pytest.mark.parametrize(
    ("asker", "others", "expected"),
    [
        # All of the line, none of the bucket, whatever the cap.
        (standing(b"a"), [], 1000),
        (standing(b"a", owed=300), [], 700),
        (standing(b"a", owed=-300), [], 1300),
        # What another member owes is gone: neither of the two exceeds the line alone.
        (standing(b"a", owed=300), [standing(b"b", owed=600)], 100),
        (standing(b"a", owed=300), [standing(b"b", reserved_in=400, locked_for=200)], 100),
        (standing(b"a", owed=300), [standing(b"b", owed=800)], 0),
        # What we owe one member is no credit of another.
        (standing(b"a"), [standing(b"b", owed=-600)], 1000),
        # A line that was lowered lends nothing; what we owe can be drawn.
        (standing(b"a", owed=-50), [standing(b"b", owed=4000)], 50),
        # Its own line waits until it is on its own again.
        (standing(b"a", granted=5000, verified=8000), [], 1000),
        # Strangers and other fleets are other accounts.
        (standing(b"a"), [standing(b"b", AWAY, owed=600), standing(b"c", None, owed=50_000)], 1000),
        (standing(b"a", None), [standing(b"b", owed=1000), standing(b"c", AWAY, owed=60_000)], 250),
        (standing(b"a", None, granted=90_000), [standing(b"b", OPEN, owed=60_000)], 50_000),
        # Without a bound.
        (standing(b"a", OPEN, owed=10**12), [standing(b"b", OPEN, owed=10**12)], INTEGER - 2 * 10**12),
        (standing(b"a", OPEN, owed=-5), [], INTEGER),
    ],
)
def test_the_line_is_one_account(asker: Standing, others: list[Standing], expected: int) -> None:
    assert room(asker, others, POLICY) == expected


def test_a_member_takes_nothing_of_the_bucket_and_is_given_nothing_of_it() -> None:
    assert standing(b"a", owed=5000).over == 0
    assert write_offs([standing(b"a", owed=5000)], {}, POLICY) == {}


def test_a_fleet_weighs_what_it_is_lent() -> None:
    assert share(standing(b"a"), POLICY) == 1000
    assert share(standing(b"a", OPEN), POLICY) == CREDIT
    assert share(standing(b"a", OPEN), CreditPolicy()) == CreditPolicy().cap
    assert share(standing(b"a", None, granted=30), POLICY) == 30


requests = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 600), st.booleans()), max_size=40)


@given(requests)
def test_exposure_never_exceeds_the_line(asked: list[tuple[str, int, bool]]) -> None:
    """However members take turns to ask and to pay."""
    books = {name: standing(name.encode()) for name in "abcd"}
    for name, price, pays in asked:
        one = books[name]
        if pays:
            books[name] = replace(one, reserved_in=0)
        elif price <= room(one, books.values(), POLICY):
            books[name] = replace(one, reserved_in=one.reserved_in + price)
        assert sum(book.exposure for book in books.values()) <= 1000


async def admitted(ledger: Ledger, key: NodeKey, number: int, price: int, to: NodeId = B.id) -> bool:
    order = lease(price, number, key=key, to=to)
    try:
        await ledger.transact("admit", lambda tx: tx.admit(order, "203.0.113.0/24", private=False))
    except NoCredit:
        return False
    return True


async def join(ledger: Ledger, node: NodeId, **more: Any) -> None:
    signed = certificate(node, **more)
    await ledger.transact("group:joined", lambda tx: tx.join(signed))


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now: int = now_ms()

    def __call__(self) -> UnixMs:
        return UnixMs(self.now)


@pytest.mark.asyncio
async def test_a_certificate_is_remembered_and_ends(tmp_path: Path) -> None:
    clock = Clock()
    ledger = await Ledger.open(tmp_path, B, serving(5000, bucket=100), clock=clock)
    assert not await admitted(ledger, A, 1, 1000)
    await join(ledger, A.id, days=2)
    assert await admitted(ledger, A, 1, 1000)
    await ledger.close()

    ledger = await Ledger.open(tmp_path, B, serving(5000, bucket=100), clock=clock)
    assert await admitted(ledger, A, 2, 3000)
    book = await ledger.read(lambda reader: reader.book(A.id))
    assert (book.exposure, book.line, book.standing.over) == (4000, 5000, 0)
    assert book.member is not None
    assert await ledger.read(lambda reader: reader.trusted()) == {A.id}

    # Nothing is lost: the same exposure is an ordinary peer's, beyond its line.
    clock.now += 2 * DAY_MS + 60_000
    book = await ledger.read(lambda reader: reader.book(A.id))
    assert (book.exposure, book.line, book.standing.over, book.member) == (4000, 0, 4000, None)
    assert not await admitted(ledger, A, 3, 1)
    assert await ledger.read(lambda reader: reader.trusted()) == set()
    assert (await ledger.verify()).faults == ()
    await ledger.close()


@pytest.mark.asyncio
async def test_two_members_draw_on_one_line(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path, B, serving(1000))
    for key in (A, C):
        await join(ledger, key.id)
    assert await admitted(ledger, A, 1, 600)
    assert not await admitted(ledger, C, 2, 600)
    assert await admitted(ledger, C, 3, 400)
    assert not await admitted(ledger, A, 4, 1)
    accounts = await ledger.read(lambda reader: [reader.account(key.id) for key in (A, C, B)])
    assert [(one.name, one.line) for one in accounts] == [(OWNER.id, 1000), (OWNER.id, 1000), (None, 0)]
    await ledger.close()


@pytest.mark.asyncio
async def test_concurrent_leases_stay_within_the_line(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path, B, serving(1000))
    keys = [NodeKey.from_seed(bytes([number]) * 32) for number in range(1, 9)]
    for key in keys:
        await join(ledger, key.id)
    taken = await asyncio.gather(*(admitted(ledger, key, number, 170) for number in range(8) for key in keys))
    assert sum(taken) == 5
    books = await ledger.read(lambda reader: reader.books())
    assert sum(book.exposure for book in books) == 850
    await ledger.close()


@pytest.mark.asyncio
async def test_of_two_fleets_the_one_that_stands_first_counts(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path, B, serving(keys=(RIVAL, OWNER)))
    await join(ledger, A.id)
    assert (await ledger.read(lambda reader: reader.account(A.id))).name == OWNER.id
    await join(ledger, A.id, owner=RIVAL, days=1, ago_ms=DAY_MS // 2)
    assert (await ledger.read(lambda reader: reader.account(A.id))).name == RIVAL.id
    assert (await ledger.read(lambda reader: reader.members()))[A.id].group.key == RIVAL.id
    await ledger.close()
    ledger = await Ledger.open(tmp_path, B, serving(keys=(OWNER, RIVAL)))
    assert (await ledger.read(lambda reader: reader.account(A.id))).name == OWNER.id
    assert (await ledger.read(lambda reader: reader.members()))[A.id].group.key == OWNER.id
    await ledger.close()
    ledger = await Ledger.open(tmp_path, B, CreditPolicy())
    assert (await ledger.read(lambda reader: reader.account(A.id))).name is None
    await ledger.close()


@pytest.mark.asyncio
async def test_the_newest_certificate_counts(tmp_path: Path) -> None:
    clock = Clock()
    ledger = await Ledger.open(tmp_path, B, serving(), clock=clock)
    older = certificate(A.id, ago_ms=DAY_MS)
    await join(ledger, A.id, days=1)
    with pytest.raises(Refusal) as refused:
        await ledger.transact("group:joined", lambda tx: tx.join(older))
    assert refused.value.code is Code.CONFLICT
    # The newer one has ended and others were written since: the older one still does not count.
    clock.now += 2 * DAY_MS + 60_000
    await join(ledger, C.id)
    with pytest.raises(Refusal):
        await ledger.transact("group:joined", lambda tx: tx.join(older))
    assert A.id not in await ledger.read(lambda reader: reader.members())
    await ledger.close()


@pytest.mark.asyncio
async def test_rows_are_bounded_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MEMBERS", 3)
    clock = Clock()
    ledger = await Ledger.open(tmp_path, B, serving(), clock=clock)
    keys = [NodeKey.from_seed(bytes([number]) * 32) for number in range(1, 5)]
    for key in keys[:3]:
        await join(ledger, key.id)
    with pytest.raises(Refusal) as refused:
        await join(ledger, keys[3].id)
    assert refused.value.code is Code.BUSY
    await join(ledger, keys[0].id)  # renewed, not one more
    clock.now += 31 * DAY_MS
    late = certificate(keys[3].id, ago_ms=-31 * DAY_MS)
    await ledger.transact("group:joined", lambda tx: tx.join(late))
    await ledger.close()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("SELECT node FROM certificates").fetchall() == [(keys[3].id,)]


@pytest.mark.asyncio
async def test_a_forged_row_is_found(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path, B, serving())
    await join(ledger, A.id, days=1)
    await ledger.close()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("UPDATE certificates SET exp = exp + 1")
        connection.commit()
    assert [fault for fault in verify(tmp_path, B.id).faults if "its row says something else" in fault]
    with pytest.raises(Damaged):
        await Ledger.open(tmp_path, B, serving())


@pytest.mark.asyncio
async def test_a_ledger_of_the_first_version_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    with monkeypatch.context() as former, closing(sqlite3.connect(tmp_path / "a" / FILE, isolation_level=None)) as connection:
        former.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        former.setattr(schema, "VERSION", 1)
        schema.prepare(connection)
        connection.execute("VACUUM INTO ?", (str(tmp_path / "old"),))
    ledger = await Ledger.open(tmp_path / "a", B, serving())
    await join(ledger, A.id)
    await ledger.close()
    assert restore_backup(tmp_path / "old", tmp_path / "a" / FILE, B.id, UnixMs(1)).report.faults == ()
    ledger = await Ledger.open(tmp_path / "a", B, serving())
    assert await ledger.read(lambda reader: reader.members()) == {}
    await ledger.close()
