"""Prepayments, refunds and debts given up: what one owner writes down, and what the other's node takes."""

from pathlib import Path

import pytest

from nexus_edge.errors import LedgerError, UsageError
from nexus_edge.ledger import EntryRefused, Ledger
from nexus_edge.ledger.deeds import Deed, Done, What, carry_out
from nexus_edge.types import MicroCredits, NodeId
from nexus_edge.wire.refusals import Code
from tests.support.books import A, B, trade, work

pytestmark = pytest.mark.asyncio


async def do(ledger: Ledger, what: What, peer: NodeId, amount: int | None, about: str = "") -> Done:
    deed = Deed(what, peer, None if amount is None else MicroCredits(amount), about)
    return await ledger.transact("deed", lambda tx: carry_out(deed, tx))


async def post(debtor: Ledger, creditor: Ledger, peer: NodeId) -> None:
    for entry in await debtor.read(lambda reader: reader.unacknowledged(peer)):
        ack, _ = await creditor.transact("take", lambda tx: tx.take(entry))  # noqa: B023 - awaited here
        await debtor.transact("acknowledged", lambda tx: tx.acknowledged(ack))  # noqa: B023


async def owed(ledger: Ledger, peer: NodeId) -> int:
    return (await ledger.read(lambda reader: reader.book(peer))).owed


async def test_an_invoice_paid_elsewhere_is_owed_once(tmp_path: Path) -> None:
    one, other = await trade(tmp_path, 2)
    await do(one, What.EXPECT, B.id, 5000, "Invoice 17")
    await do(other, What.PREPAY, A.id, 5000, " Invoice 17 ")
    again = await do(other, What.PREPAY, A.id, 5000, "Invoice 17")
    await post(other, one, A.id)
    assert again.amount == 5000
    assert await owed(one, B.id) == -await owed(other, A.id) == 5000 - 2000
    for ledger in (one, other):
        assert (await ledger.verify()).faults == ()
        await ledger.close()


@pytest.mark.parametrize(("amount", "words"), [(5001, "Invoice 17"), (5000, "invoice 17")])
async def test_what_is_not_expected_is_not_taken(tmp_path: Path, amount: int, words: str) -> None:
    """Else any peer could fill our disk, and its own account."""
    one, other = await trade(tmp_path, 2)
    await do(one, What.EXPECT, B.id, 5000, "Invoice 17")
    await do(other, What.PREPAY, A.id, amount, words)
    with pytest.raises(EntryRefused) as refused:
        await post(other, one, A.id)
    assert refused.value.code is Code.BAD_OBJECT
    assert await owed(one, B.id) == -2000
    for ledger in (one, other):
        await ledger.close()


async def test_a_job_is_refunded(tmp_path: Path) -> None:
    one, other = await trade(tmp_path, 2)
    (last, _) = [line.job for line in await other.read(lambda reader: reader.movements(peer=A.id)) if line.job and line.entry]
    assert last is not None
    with pytest.raises(LedgerError, match="at most what was paid"):
        await do(other, What.REFUND, A.id, 1001, last.hex())
    with pytest.raises(LedgerError, match="several jobs"):
        await do(other, What.REFUND, A.id, None, "00")
    for nothing in ("", "ff", "j-1"):
        with pytest.raises(LedgerError, match="no such job"):
            await do(other, What.REFUND, A.id, None, nothing)
    done = await do(other, What.REFUND, A.id, None, f"j-{last.hex()}")
    assert done.amount == 1000
    await post(other, one, A.id)
    assert await owed(one, B.id) == -await owed(other, A.id) == -1000
    assert [line.kind for line in await one.read(lambda reader: reader.movements(1))] == ["refunded"]
    for ledger in (one, other):
        assert (await ledger.verify()).faults == ()
        await ledger.close()


async def test_a_debt_is_given_up(tmp_path: Path) -> None:
    one, other = await trade(tmp_path, 2)
    await work(one, other, 3)  # delivered, and never paid
    with pytest.raises(LedgerError, match="less to write off"):
        await do(other, What.WRITE_OFF, A.id, 1_000_000)
    before = (await other.read(lambda reader: reader.book(A.id))).exposure
    done = await do(other, What.WRITE_OFF, A.id, None)
    assert done.amount == before > 0
    assert (await other.read(lambda reader: reader.book(A.id))).exposure == 0
    with pytest.raises(LedgerError, match="less to write off"):
        await do(other, What.WRITE_OFF, A.id, None)
    for ledger in (one, other):
        assert (await ledger.verify()).faults == ()
        await ledger.close()


@pytest.mark.parametrize("what", [What.EXPECT, What.PREPAY])
@pytest.mark.parametrize(("amount", "words"), [(None, "Invoice 17"), (5, " ")])
async def test_a_prepayment_says_how_much_and_what_for(tmp_path: Path, what: What, amount: int | None, words: str) -> None:
    one, other = await trade(tmp_path, 1)
    with pytest.raises(UsageError):
        await do(one, what, B.id, amount, words)
    for ledger in (one, other):
        await ledger.close()
