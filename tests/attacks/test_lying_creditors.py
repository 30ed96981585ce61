"""Creditors that lie about what they hold: nothing is signed twice within one total, and they keep nobody busy."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import Ledger, Reader
from nexus_edge.ledger.owing import PATIENCE
from nexus_edge.market.attempts import RULES as JOBS
from nexus_edge.market.leasebook import RULES as LEASES
from nexus_edge.market.machines import Machines
from nexus_edge.market.settling import Payer, Till
from nexus_edge.types import NOTHING, Digest, UnixMs
from nexus_edge.wire.messages import AccountAnswer, EntriesAnswer
from nexus_edge.wire.objects import Ack, Entry
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, sign
from tests.support.books import A, B, work

pytestmark = pytest.mark.asyncio

PRICE = 1000


@pytest_asyncio.fixture
async def ledgers(tmp_path: Path) -> AsyncIterator[tuple[Ledger, Ledger]]:
    """Of a debtor, and of an honest creditor, whom the debtor's leases need; what the debtor hears is the test's."""
    debtor, creditor = await Ledger.open(tmp_path / "a", A), await Ledger.open(tmp_path / "b", B)
    yield debtor, creditor
    assert (await debtor.verify()).faults == ()
    for ledger in (debtor, creditor):
        await ledger.close()


async def pending(debtor: Ledger) -> list[Signed[Entry]]:
    return await debtor.read(lambda reader: reader.unacknowledged(B.id))


async def refuse(debtor: Ledger, code: Code, last: Signed[Entry] | None) -> None:
    first = (await pending(debtor))[0]
    await debtor.transact("refused", lambda tx: tx.refused(B.id, first, code, last))


def acknowledgement(entry: Signed[Entry], at: int = 1) -> Signed[Ack]:
    return sign(B, Ack(iss=B.id, at=UnixMs(at), to=A.id, entry=entry.id))


def signed(reader: Reader) -> list[Signed[Entry]]:
    """Everything that the debtor ever signed for the creditor, given up or not."""
    rows = reader._connection.execute("SELECT id FROM objects WHERE t = 'entry' ORDER BY n").fetchall()
    return [reader.object(Digest(row[0])).of(Entry) for row in rows]


async def check_totals(debtor: Ledger, jobs: int) -> None:
    """No entry has a total in which a reference is twice: the creditor can show each of them to anybody."""
    entries = {one.id: one.object for one in await debtor.read(signed)}
    for one in entries.values():
        refs: list[Digest] = []
        at: Entry | None = one
        while at is not None:
            refs += [at.ref] if at.what != "opening" else []
            at = entries.get(at.prev)
        assert len(set(refs)) == len(refs)
        assert one.total == len(refs) * PRICE <= jobs * PRICE


async def test_a_chain_that_was_refused_is_shown_as_taken(ledgers: tuple[Ledger, Ledger]) -> None:
    """Its last entry includes all before it: none of that is signed again on top."""
    debtor, creditor = ledgers
    for number in range(1, 6):
        await work(debtor, creditor, number)
    tip = (await pending(debtor))[-1]
    await refuse(debtor, Code.REGRESS, None)
    again = (await pending(debtor))[-1]
    assert (again.object.total, again.object.chain != tip.object.chain) == (5 * PRICE, True)
    await refuse(debtor, Code.GAP, tip)
    assert (await debtor.read(lambda reader: reader.book(B.id))).out == 5 * PRICE
    # It says that it has them; then it can acknowledge them.
    assert [one.object.total for one in await pending(debtor)] == [0, *(n * PRICE for n in range(1, 5))]
    for one in await pending(debtor):
        await debtor.transact("acknowledged", partial(lambda ack, tx: tx.acknowledged(ack), acknowledgement(one)))
    assert await pending(debtor) == []
    assert (await debtor.read(lambda reader: reader.book(B.id))).reserved_out == 0
    await check_totals(debtor, 5)


async def test_an_entry_that_was_given_up_is_acknowledged(ledgers: tuple[Ledger, Ledger]) -> None:
    debtor, creditor = ledgers
    for number in range(1, 4):
        await work(debtor, creditor, number)
    middle = (await pending(debtor))[2]
    await refuse(debtor, Code.REGRESS, None)
    await debtor.transact("acknowledged", lambda tx: tx.acknowledged(acknowledgement(middle)))
    await refuse(debtor, Code.GAP, middle)
    await check_totals(debtor, 3)


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_it_answers(ledgers: tuple[Ledger, Ledger], seed: int) -> None:
    """Random acknowledgements and refusals of random entries, new or old, given up or not, with random ones as the last."""
    debtor, creditor = ledgers
    chance = random.Random(seed)
    jobs = 0
    for _ in range(60):
        known = await debtor.read(signed)
        shown = chance.choice([None, *known])
        posted = await pending(debtor)
        try:
            match chance.randrange(5):
                case 0:
                    await work(debtor, creditor, jobs + 1)
                    jobs += 1
                case 1 if known:
                    ack = acknowledgement(chance.choice(known), chance.randrange(9))
                    await debtor.transact("acknowledged", partial(lambda ack, tx: tx.acknowledged(ack), ack))
                case 2:
                    await debtor.transact("informed", partial(lambda last, tx: tx.informed(B.id, last), shown))
                case _ if posted:
                    code = chance.choice([Code.GAP, Code.GAP, Code.REGRESS, Code.REGRESS, Code.PAID, Code.BAD_OBJECT])
                    entry = posted[0] if chance.random() < 0.7 else chance.choice(posted)
                    await debtor.transact(
                        "refused", partial(lambda one, code, last, tx: tx.refused(B.id, one, code, last), entry, code, shown)
                    )
        except LedgerError as failed:
            if "do not come together" not in str(failed):
                raise
    await check_totals(debtor, jobs)


class Liar:
    """Answers posts so that there is always something to compare."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.posts = 0
        self._opening: Signed[Entry] | None = None

    async def entries(self, entries: tuple[Signed[Entry], ...]) -> EntriesAnswer:
        self.posts += 1
        await asyncio.sleep(0)
        first = entries[0]
        if self.kind == "acknowledges it to another":
            other = NodeKey.from_seed(b"c" * 32).id
            acks = (sign(B, Ack(iss=B.id, at=UnixMs(1), to=other, entry=one.id)) for one in entries)
            return EntriesAnswer(tuple(ack.to_bytes() for ack in acks), None)
        if self.kind == "forgets what it acknowledged":
            return EntriesAnswer(tuple(acknowledgement(one, self.posts).to_bytes() for one in entries), None)
        if first.object.what == "opening":
            self._opening = first
            return EntriesAnswer((acknowledgement(first, self.posts).to_bytes(),), first.to_bytes())
        if self.kind == "loses the opening":
            raise Refusal(Code.GAP, "", last=None)
        raise Refusal(Code.REGRESS, "", last=self._opening)

    def connection(self, _: object) -> "Liar":
        return self


async def test_an_acknowledgement_to_another_is_none(ledgers: tuple[Ledger, Ledger]) -> None:
    debtor, creditor = ledgers
    await work(debtor, creditor, 1)
    liar = Liar("acknowledges it to another")
    payer = Payer(debtor, Machines(debtor, JOBS), liar, Till(debtor, Machines(debtor, LEASES)))  # type: ignore[arg-type]
    payer.wake(B.id)
    await asyncio.sleep(0.4)
    await payer.close()
    assert liar.posts == 1
    assert len(await pending(debtor)) == 2


@pytest.mark.parametrize("kind", ["forgets what it acknowledged", "loses the opening", "refuses every chain behind its opening"])
async def test_a_payer_is_not_kept_busy(ledgers: tuple[Ledger, Ledger], kind: str, tmp_path: Path) -> None:
    debtor, creditor = ledgers
    await work(debtor, creditor, 1)
    liar = Liar(kind)
    payer = Payer(debtor, Machines(debtor, JOBS), liar, Till(debtor, Machines(debtor, LEASES)))  # type: ignore[arg-type]
    payer.wake(B.id)
    before = -1
    while before != liar.posts:
        before = liar.posts
        await asyncio.sleep(0.4)
    await payer.close()
    assert PATIENCE <= liar.posts <= 4 * PATIENCE
    with sqlite3.connect(tmp_path / "a" / "ledger.sqlite") as connection:
        (written,) = connection.execute("SELECT count(*) FROM events WHERE stream = 'money'").fetchone()
    assert written <= 8 * PATIENCE
    await check_totals(debtor, 1)


class Slow:
    """An honest creditor; a look at its account takes a while."""

    def __init__(self) -> None:
        self.looked_at = asyncio.Event()
        self.answers = asyncio.Event()

    async def entries(self, entries: tuple[Signed[Entry], ...]) -> EntriesAnswer:
        return EntriesAnswer(tuple(acknowledgement(one).to_bytes() for one in entries), entries[-1].to_bytes())

    async def account(self, *_: object) -> AccountAnswer:
        self.looked_at.set()
        await self.answers.wait()
        return AccountAnswer((), NOTHING, NOTHING)

    def connection(self, _: object) -> "Slow":
        return self


async def test_what_is_signed_while_an_account_is_looked_at_is_posted(ledgers: tuple[Ledger, Ledger]) -> None:
    debtor, creditor = ledgers
    slow = Slow()
    payer = Payer(debtor, Machines(debtor, JOBS), slow, Till(debtor, Machines(debtor, LEASES)))  # type: ignore[arg-type]
    await work(debtor, creditor, 1)
    payer.wake(B.id)
    await slow.looked_at.wait()
    await work(debtor, creditor, 2)
    payer.wake(B.id)
    slow.answers.set()
    async with asyncio.timeout(10):
        while await pending(debtor):
            await asyncio.sleep(0.02)
    await payer.close()
