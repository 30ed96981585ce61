"""Peers that lie about money: each gets the stated refusal, and no more than what it was lent."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import CreditPolicy, EntryRefused, Ledger, NoCredit, SpendLimit, Transaction, lending, restore_backup
from nexus_edge.ledger.credit import DAY_MS
from nexus_edge.ledger.lending import OPENINGS
from nexus_edge.ledger.owing import PATIENCE
from nexus_edge.types import Digest, MicroCredits, UnixMs
from nexus_edge.wire.objects import Entry
from nexus_edge.wire.refusals import Code
from nexus_edge.wire.signing import Signed, sign
from tests.support.books import ZERO, A, B, lease, ref, settle, work

pytestmark = pytest.mark.asyncio


@dataclass
class Clock:
    """Time that a test turns."""

    now: int = 1_800_000_000_000
    wrong_by: int = 0

    def __call__(self) -> UnixMs:
        return UnixMs(self.now + self.wrong_by)

    def ticks(self) -> int:
        return self.now

    def wait(self, ms: int) -> None:
        self.now += ms


@dataclass
class Pair:
    """A buys of B."""

    a: Ledger
    b: Ledger
    clock: Clock


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    clock = Clock()
    a, b = (
        await Ledger.open(tmp_path / "a", A, clock=clock, ticks=clock.ticks),
        await Ledger.open(tmp_path / "b", B, clock=clock, ticks=clock.ticks),
    )
    yield Pair(a, b, clock)
    for ledger in (a, b):
        assert (await ledger.verify()).faults == ()
        await ledger.close()


def entry(last: Signed[Entry] | None, key: NodeKey = A, **changes: Any) -> Signed[Entry]:
    """What follows `last` in its chain, but for the changes."""
    if last is None:
        plain = Entry(key.id, UnixMs(1), B.id, b"8 bytes.", 0, ZERO, "opening", MicroCredits(0), MicroCredits(0), ZERO)
    else:
        before = last.object
        amount = changes.get("amt", MicroCredits(1000))
        total = MicroCredits(before.total + amount)
        plain = replace(before, seq=before.seq + 1, prev=last.id, what="job", amt=amount, total=total, ref=ref(1))
    return sign(key, replace(plain, **changes))


async def take(ledger: Ledger, signed: Signed[Entry]) -> Code | None:
    try:
        await ledger.transact("take", lambda tx: tx.take(signed))
    except EntryRefused as refused:
        return refused.code
    return None


async def owed_to(b: Ledger, number: int, price: int = 1000) -> Signed[Any]:
    order = lease(price, number)
    await b.transact("admit", lambda tx: tx.admit(order, "127.0.0.1", private=True))
    await b.transact("owe", lambda tx: tx.owe(order.id, ref(number)))
    return order


async def restored(pair: Pair, folder: Path) -> None:
    """B goes back to a backup of this moment, and so may have forgotten what it is paid for."""
    await pair.b.backup(folder / "copy")
    await pair.b.close()
    restore_backup(folder / "copy", folder / "b" / "ledger.sqlite", B.id, pair.clock())
    pair.b = await Ledger.open(folder / "b", B, clock=pair.clock, ticks=pair.clock.ticks)


async def test_two_entries_under_one_number_are_evidence(pair: Pair) -> None:
    await owed_to(pair.b, 1)
    opening = entry(None)
    assert await take(pair.b, opening) is None
    job = entry(opening)
    assert await take(pair.b, job) is None
    fork = entry(opening, ref=ref(2))
    assert await take(pair.b, fork) is Code.CONFLICT
    await pair.b.transact("evidence", lambda tx: tx.contradicted(fork))
    await pair.b.transact("evidence", lambda tx: tx.contradicted(entry(opening, ref=ref(3))))
    kept = [event for event in await pair.b.read(lambda reader: reader.events("money", A.id)) if event.kind == "contradicted"]
    assert [(event.body["entry"], event.body["held"]) for event in kept] == [(fork.id, job.id)]
    assert await pair.b.read(lambda reader: reader.object(fork.id)) == fork
    assert (await pair.b.read(lambda reader: reader.book(A.id))).inn == 1000


async def test_a_reference_is_not_paid_twice_and_a_fee_is_not_a_price(pair: Pair) -> None:
    order = await owed_to(pair.b, 1)
    opening = entry(None)
    await take(pair.b, opening)
    assert await take(pair.b, entry(opening, what="fee")) is Code.BAD_OBJECT
    assert await take(pair.b, entry(opening, what="fee", ref=order.id, amt=MicroCredits(1))) is Code.BAD_OBJECT
    job = entry(opening)
    assert await take(pair.b, job) is None
    assert await take(pair.b, entry(job)) is Code.PAID


@pytest.mark.parametrize("what", ["prepaid", "refund", "draft", "gift", "opening"])
async def test_nobody_pushes_entries_that_nobody_waits_for(pair: Pair, what: str) -> None:
    opening = entry(None)
    await take(pair.b, opening)
    assert await take(pair.b, entry(opening, what=what)) is Code.BAD_OBJECT
    assert (await pair.b.read(lambda reader: reader.book(A.id))).inn == 0


async def test_a_prepayment_is_taken_as_it_was_agreed(pair: Pair) -> None:
    """A was paid elsewhere by B, whose owner said so."""
    await pair.b.transact("expect", lambda tx: tx.expect(A.id, MicroCredits(700), ref(8)))
    opening = entry(None)
    await take(pair.b, opening)
    assert await take(pair.b, entry(opening, what="prepaid", ref=ref(8), amt=MicroCredits(701))) is Code.BAD_OBJECT
    assert await take(pair.b, entry(opening, what="prepaid", ref=ref(8), amt=MicroCredits(700))) is None
    assert (await pair.b.read(lambda reader: reader.book(A.id))).owed == 700


async def test_a_refund_is_at_most_what_was_paid_and_comes_once(pair: Pair) -> None:
    await work(pair.a, pair.b, 1)
    await settle(pair.a, pair.b)
    with pytest.raises(LedgerError, match="at most what was paid"):
        await pair.b.transact("refund", lambda tx: tx.refund(A.id, MicroCredits(1001), ref(1)))
    await pair.b.transact("refund", lambda tx: tx.refund(A.id, MicroCredits(400), ref(1)))
    await pair.b.transact("refund", lambda tx: tx.refund(A.id, MicroCredits(400), ref(1)))
    for signed in await pair.b.read(lambda reader: reader.entries_after(A.id, bytes(8), 0, 64)):
        assert await take(pair.a, signed) is None
    assert (await pair.a.read(lambda reader: reader.book(B.id))).owed == -600
    assert (await pair.b.read(lambda reader: reader.book(A.id))).owed == 600
    assert await pair.b.read(lambda reader: reader.sums_since(UnixMs(0))) == (600, 0)
    assert await pair.a.read(lambda reader: reader.sums_since(UnixMs(0))) == (0, 600)


async def test_chains_without_payments_do_not_fill_the_disk(pair: Pair) -> None:
    last: Signed[Entry] | None = None
    for number in range(OPENINGS):
        opening = entry(None, chain=number.to_bytes(8, "big"), prev=ZERO if last is None else last.id)
        assert await take(pair.b, opening) is None
        last = opening
    assert last is not None
    more = entry(None, chain=b"another!", prev=last.id)
    assert await take(pair.b, more) is Code.RATE
    pair.clock.wait(DAY_MS)
    assert await take(pair.b, more) is None


async def test_accounts_that_are_opened_for_nothing_do_not_fill_the_disk(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "STRANGERS", 3)
    strangers = [NodeKey.from_seed(bytes([number]) * 32) for number in range(1, 5)]
    codes = [await take(pair.b, entry(None, one, iss=one.id)) for one in strangers]
    assert codes == [None, None, None, Code.RATE]
    await owed_to(pair.b, 1)
    opening = entry(None)
    assert await take(pair.b, opening) is None  # whoever owes something may always pay it
    assert await take(pair.b, entry(opening)) is None


async def test_a_clock_that_was_set_back_closes_no_account(pair: Pair) -> None:
    last: Signed[Entry] | None = None
    pair.clock.wrong_by = 365 * DAY_MS
    for number in range(OPENINGS):
        last = entry(None, chain=number.to_bytes(8, "big"), prev=ZERO if last is None else last.id)
        assert await take(pair.b, last) is None
    assert last is not None
    pair.clock.wrong_by = 0
    pair.clock.wait(DAY_MS)
    assert await take(pair.b, entry(None, chain=b"another!", prev=last.id)) is None


@pytest.mark.parametrize("what", ["prepaid", "refund"])
async def test_after_a_restore_too_a_job_costs_its_price(pair: Pair, tmp_path: Path, what: str) -> None:
    await restored(pair, tmp_path)
    await owed_to(pair.b, 1)
    opening = entry(None)
    assert await take(pair.b, opening) is None
    assert await take(pair.b, entry(opening, what=what, amt=MicroCredits(1))) is Code.BAD_OBJECT
    assert (await pair.b.read(lambda reader: reader.book(A.id))).exposure == 1000
    assert await take(pair.b, entry(opening)) is None


async def test_after_a_restore_nobody_closes_the_node_with_a_debt_that_it_never_had(pair: Pair, tmp_path: Path) -> None:
    """An exposure that nobody admitted must not pass for one that somebody did: no room would be left for others."""
    await restored(pair, tmp_path)
    other = NodeKey.from_seed(b"o" * 32)
    room = await pair.b.read(lambda reader: reader.room(other.id, "203.0.113.0/24", private=False))
    opening = entry(None)
    assert await take(pair.b, opening) is None
    assert await take(pair.b, entry(opening, ref=ref(77), amt=MicroCredits(1 << 40))) is None
    book = await pair.b.read(lambda reader: reader.book(A.id))
    assert (book.owed, book.exposure) == (1 << 40, 250_000)
    assert await pair.b.read(lambda reader: reader.room(A.id, "", private=False)) == 0
    assert await pair.b.read(lambda reader: reader.room(other.id, "203.0.113.0/24", private=False)) == room == 250_000
    assert await pair.b.read(lambda reader: reader.room(other.id, "127.0.0.1", private=True)) == 2_500_000


async def test_after_a_restore_payments_for_nothing_do_not_fill_the_disk(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(lending, "FORGOTTEN", 3)
    monkeypatch.setattr(lending, "FORGOTTEN_OF_ALL", 5)
    await restored(pair, tmp_path)

    async def push(key: NodeKey) -> list[Code | None]:
        last = entry(None, key, iss=key.id)
        codes = [await take(pair.b, last)]
        for number in range(1, 5):
            last = entry(last, key, ref=ref(number), amt=MicroCredits(1))
            codes.append(await take(pair.b, last))
        return codes

    assert await push(A) == [None, None, None, None, Code.RATE]
    others = [NodeKey.from_seed(bytes([number]) * 32) for number in (1, 2)]
    assert await push(others[0]) == [None, None, None, Code.RATE, Code.GAP]
    assert (await push(others[1]))[:2] == [None, Code.RATE]
    # What is owed is taken as ever.
    await owed_to(pair.b, 77)
    last = await pair.b.read(lambda reader: reader.last_entry(A.id, B.id))
    assert last is not None
    assert await take(pair.b, entry(last, ref=ref(77))) is None


async def test_a_creditor_that_refuses_everything_wears_out_nobody(pair: Pair) -> None:
    await work(pair.a, pair.b, 1)

    async def refuse() -> None:
        first = (await pair.a.read(lambda reader: reader.unacknowledged(B.id)))[0]
        await pair.a.transact("refused", lambda tx: tx.refused(B.id, first, Code.REGRESS, None))

    for _ in range(PATIENCE):
        await refuse()
    with pytest.raises(LedgerError, match="do not come together"):
        await refuse()
    # With the truth it is paid after all, an hour later.
    pair.clock.wait(3_600_000)
    await settle(pair.a, pair.b)
    assert (await pair.b.read(lambda reader: reader.book(A.id))).owed == 1000


async def test_an_entry_that_the_creditor_does_not_want_holds_up_no_other(pair: Pair) -> None:
    """Such as the fee of a job that it never heard was cancelled."""
    await work(pair.a, pair.b, 1)
    order = lease(500, 2, fee=50)
    await pair.a.transact("offer", lambda tx: tx.reserve(order))
    await pair.a.transact("fee", lambda tx: tx.pay(B.id, order.id, "fee", MicroCredits(50), order.id))
    await work(pair.a, pair.b, 3)
    pending = await pair.a.read(lambda reader: reader.unacknowledged(B.id))
    codes = [await take(pair.b, signed) for signed in pending]
    assert codes == [None, None, Code.BAD_OBJECT, Code.GAP]
    last = await pair.b.read(lambda reader: reader.last_entry(A.id, B.id))
    for signed in pending[:2]:
        ack, _ = await pair.b.transact("take", partial(Transaction.take, entry=signed))
        await pair.a.transact("acknowledged", partial(Transaction.acknowledged, ack=ack))
    assert await pair.a.transact("refused", lambda tx: tx.refused(B.id, pending[2], Code.BAD_OBJECT, last)) == order.id
    await settle(pair.a, pair.b)
    ours, theirs = await pair.a.read(lambda reader: reader.book(B.id)), await pair.b.read(lambda reader: reader.book(A.id))
    assert (ours.owed, ours.disputed, ours.reserved_out) == (-2000, 50, 0)
    assert theirs.owed == 2000


async def test_a_peer_cannot_show_an_entry_of_another(pair: Pair) -> None:
    await work(pair.a, pair.b, 1)
    first = (await pair.a.read(lambda reader: reader.unacknowledged(B.id)))[0]
    for forged in (entry(None, key=B, to=A.id), entry(None, to=A.id)):
        with pytest.raises(LedgerError, match="not ours to it"):
            await pair.a.transact("refused", lambda tx: tx.refused(B.id, first, Code.REGRESS, forged))  # noqa: B023 - awaited here
        with pytest.raises(LedgerError, match="not ours to it"):
            await pair.a.transact("informed", lambda tx: tx.informed(B.id, forged))  # noqa: B023 - awaited here


async def test_who_never_pays_takes_no_more_than_the_bound(tmp_path: Path) -> None:
    """With as many identities as it likes, over 60 days: the bucket, and a tenth of it for each day that was written off."""
    clock = Clock()
    policy = CreditPolicy(public_bucket=MicroCredits(10_000))
    ledger = await Ledger.open(tmp_path, B, policy, clock=clock, ticks=clock.ticks)
    taken = 0
    for day in range(60):
        for identity in range(3):
            attacker = NodeKey.from_seed(bytes([day, identity]) + bytes(30))
            for prefix in ("203.0.113.0/24", "198.51.100.0/24"):
                room = await ledger.read(lambda reader: reader.room(attacker.id, prefix, private=False))  # noqa: B023 - awaited here
                if not room:
                    continue
                order = lease(room, 2 * (3 * day + identity) + (prefix[0] == "1"), key=attacker)
                await ledger.transact("admit", lambda tx: tx.admit(order, prefix, private=False))  # noqa: B023
                await ledger.transact("owe", lambda tx: tx.owe(order.id, order.id))  # noqa: B023
                taken += room
                more = lease(5001, 999, key=attacker)
                with pytest.raises(NoCredit):
                    await ledger.transact("admit", lambda tx: tx.admit(more, prefix, private=False))  # noqa: B023
        clock.wait(DAY_MS)
        given = await ledger.transact("write-off", lambda tx: tx.write_off_overflow())
        assert sum(given.values()) <= 1000
        assert await ledger.transact("again", lambda tx: tx.write_off_overflow()) == {}
    assert 10_000 < taken <= 10_000 + 60 * 1000
    exposure = sum(book.exposure for book in await ledger.read(lambda reader: reader.books()))
    assert exposure <= 10_000
    assert (await ledger.verify()).faults == ()
    await ledger.close()


async def test_what_was_paid_elsewhere_is_written_off_by_nobody_but_its_owner(pair: Pair) -> None:
    bill = ref(77)
    await pair.b.transact("expect", lambda tx: tx.expect(A.id, MicroCredits(3_000_000), bill))
    await pair.a.transact("prepay", lambda tx: tx.prepaid(B.id, MicroCredits(3_000_000), bill))
    await settle(pair.a, pair.b)
    for _ in range(3):
        assert await pair.b.transact("write-off", lambda tx: tx.write_off_overflow()) == {}
        pair.clock.wait(20 * DAY_MS)
    assert (await pair.b.read(lambda reader: reader.book(A.id))).written_off == 0


async def test_what_was_written_off_and_repaid_is_no_credit(pair: Pair) -> None:
    await work(pair.a, pair.b, 1)
    await settle(pair.a, pair.b)
    await pair.b.transact("write-off", lambda tx: tx.write_off(A.id, MicroCredits(1000)))
    assert (await pair.b.read(lambda reader: reader.book(A.id))).exposure == 0
    with pytest.raises(LedgerError, match="less to write off"):
        await pair.b.transact("write-off", lambda tx: tx.write_off(A.id, MicroCredits(1)))
    order = lease(1000, 7, key=B, to=A.id)
    await pair.b.transact("buy", lambda tx: tx.reserve(order))
    await pair.b.transact("pay", lambda tx: tx.pay(A.id, order.id, "job", MicroCredits(1000), ref(7)))
    await work(pair.a, pair.b, 2)
    await settle(pair.a, pair.b)
    book = await pair.b.read(lambda reader: reader.book(A.id))
    assert (book.owed, book.exposure, book.disputed) == (1000, 1000, 0)


async def test_a_stake_is_of_what_is_owed_and_is_drawn_by_nobody_meanwhile(pair: Pair) -> None:
    await work(pair.a, pair.b, 1)
    await settle(pair.a, pair.b)
    with pytest.raises(LedgerError, match="the stake is not there"):
        await pair.a.transact("offer", lambda tx: tx.reserve(lease(10, 2, stake=1001)))
    order = lease(10, 2, stake=900)
    await pair.a.transact("offer", lambda tx: tx.reserve(order))
    with pytest.raises(LedgerError, match="the stake is not there"):
        await pair.a.transact("offer", lambda tx: tx.reserve(lease(10, 3, stake=101)))
    half = 2_500_000
    assert await pair.a.read(lambda reader: reader.room(B.id, "127.0.0.1", private=True)) == 100 + half
    await pair.a.transact("release", lambda tx: tx.release(order.id))
    assert await pair.a.read(lambda reader: reader.room(B.id, "127.0.0.1", private=True)) == 1000 + half


async def test_a_script_cannot_spend_more_in_a_day(tmp_path: Path) -> None:
    clock = Clock()
    ledger = await Ledger.open(tmp_path, A, CreditPolicy(spend_day=MicroCredits(1000)), clock=clock, ticks=clock.ticks)
    order = lease(800, 1)
    await ledger.transact("offer", lambda tx: tx.reserve(order))
    await ledger.transact("pay", lambda tx: tx.pay(B.id, order.id, "job", MicroCredits(800), ref(1)))
    with pytest.raises(SpendLimit, match=r"spend\.day"):
        await ledger.transact("offer", lambda tx: tx.reserve(lease(201, 2)))
    await ledger.transact("offer", lambda tx: tx.reserve(lease(200, 2)))
    clock.wait(DAY_MS)
    await ledger.transact("offer", lambda tx: tx.reserve(lease(800, 3)))
    await ledger.close()


async def test_concurrent_leases_do_not_pass_the_bound(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path, B, CreditPolicy(private_bucket=MicroCredits(10_000)))
    orders = [lease(300, number) for number in range(60)]
    made = await asyncio.gather(
        *(ledger.transact("admit", partial(Transaction.admit, lease=order, prefix="10.0.0.1", private=True)) for order in orders),
        return_exceptions=True,
    )
    assert sum(one == 300 for one in made) == 5000 // 300
    assert (await ledger.read(lambda reader: reader.book(A.id))).exposure == 4800
    await ledger.close()


async def test_what_is_not_agreed_is_not_signed(pair: Pair) -> None:
    order = lease(1000, 1, fee=50)
    await pair.a.transact("offer", lambda tx: tx.reserve(order))
    digest = Digest(b"\7" * 32)
    for kind, amount in (("job", 999), ("fee", 51), ("gift", 1000)):
        with pytest.raises(LedgerError, match="other terms"):
            await pair.a.transact("pay", lambda tx: tx.pay(B.id, order.id, kind, MicroCredits(amount), digest))  # noqa: B023 - awaited here
    await pair.a.transact("release", lambda tx: tx.release(order.id))
    with pytest.raises(LedgerError, match="nothing is owed"):
        await pair.a.transact("pay", lambda tx: tx.pay(B.id, order.id, "job", MicroCredits(1000), digest))
