"""One machine that runs twice: the same key, and the same ledger at the moment of the copy."""

import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from nexus_edge.errors import LedgerError
from nexus_edge.ledger import EntryRefused, Ledger
from nexus_edge.types import MicroCredits
from nexus_edge.wire.refusals import Code
from tests.support.books import A, B, lease, ref, settle, work

pytestmark = pytest.mark.asyncio


@dataclass
class Clones:
    """A, a copy of A that goes on from the same moment with the same memory, and their worker."""

    one: Ledger
    other: Ledger
    worker: Ledger


@pytest_asyncio.fixture
async def clones(tmp_path: Path) -> AsyncIterator[Clones]:
    one, worker = await Ledger.open(tmp_path / "one", A), await Ledger.open(tmp_path / "worker", B)
    await work(one, worker, 1)
    await settle(one, worker)
    (tmp_path / "other").mkdir()
    await one.backup(tmp_path / "copy")
    shutil.copy(tmp_path / "copy", tmp_path / "other" / "ledger.sqlite")
    other = await Ledger.open(tmp_path / "other", A)
    yield Clones(one, other, worker)
    for ledger in (one, other, worker):
        assert (await ledger.verify()).faults == ()
        await ledger.close()


async def come_together(debtor: Ledger, worker: Ledger) -> list[Code]:
    """Post until all is taken, and compare books; what was refused."""
    refusals: list[Code] = []
    for _ in range(40):
        pending = await debtor.read(lambda reader: reader.unacknowledged(B.id))
        if not pending:
            last = await worker.read(lambda reader: reader.last_entry(A.id, B.id))
            await debtor.transact("informed", lambda tx: tx.informed(B.id, last))  # noqa: B023 - awaited here
            if not await debtor.read(lambda reader: reader.unacknowledged(B.id)):
                return refusals
            continue
        entry = pending[0]
        try:
            ack, _ = await worker.transact("take", lambda tx: tx.take(entry))  # noqa: B023
        except EntryRefused as refused:
            refusals.append(refused.code)
            code, last = refused.code, refused.last
            await debtor.transact("refused", lambda tx: tx.refused(B.id, entry, code, last))  # noqa: B023
        else:
            await debtor.transact("acknowledged", lambda tx: tx.acknowledged(ack))  # noqa: B023
    raise AssertionError("the books do not come together")


async def both_buy(clones: Clones) -> list[Code]:
    """Each clone has a job of its own done, and pays it before either hears of the other."""
    await work(clones.one, clones.worker, 2)
    await work(clones.other, clones.worker, 3)
    refusals = await come_together(clones.one, clones.worker)
    refusals += await come_together(clones.other, clones.worker)
    return refusals + await come_together(clones.one, clones.worker)


async def all_paid_once(clones: Clones) -> bool:
    theirs = await clones.worker.read(lambda reader: reader.book(A.id))
    ours = [await ledger.read(lambda reader: reader.book(B.id)) for ledger in (clones.one, clones.other)]
    return (theirs.owed, theirs.exposure) == (3000, 3000) and [(book.owed, book.disputed) for book in ours] == [(-3000, 0)] * 2


async def test_a_ledger_that_was_restored_twice_pays_each_job_once_and_signs_no_contradiction(clones: Clones) -> None:
    """Each process that started signs in a chain of its own; who comes second goes on from what the worker holds."""
    assert set(await both_buy(clones)) <= {Code.GAP, Code.REGRESS}
    assert await all_paid_once(clones)


async def test_a_job_that_both_pay_is_paid_once(clones: Clones) -> None:
    order = lease(1000, 2)
    for ledger in (clones.one, clones.other):
        await ledger.transact("offer", lambda tx: tx.reserve(order))
        await ledger.transact("pay", lambda tx: tx.pay(B.id, order.id, "job", MicroCredits(1000), ref(2)))
    await clones.worker.transact("admit", lambda tx: tx.admit(order, "127.0.0.1", private=True))
    await clones.worker.transact("deliver", lambda tx: tx.owe(order.id, ref(2)))
    await come_together(clones.one, clones.worker)
    await come_together(clones.other, clones.worker)
    for ledger in (clones.one, clones.other):
        book = await ledger.read(lambda reader: reader.book(B.id))
        assert (book.owed, book.reserved_out, book.disputed) == (-2000, 0, 0)
    assert (await clones.worker.read(lambda reader: reader.book(A.id))).owed == 2000


async def test_a_snapshot_of_a_running_machine_that_is_resumed_twice(clones: Clones, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both know the chain that the process was in. Neither was asleep as its kernel has it, but the clock is put right."""
    clones.other._chains.update(clones.one._chains)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 60 * 10**9)
    assert set(await both_buy(clones)) <= {Code.GAP, Code.REGRESS}
    assert await all_paid_once(clones)


async def test_a_clone_that_nothing_tells_from_its_twin_is_refused_and_harms_no_book(clones: Clones) -> None:
    """No clock was set and no process was started: the same number is signed twice, and both sides see it. Nothing is taken twice."""
    clones.other._chains.update(clones.one._chains)
    with pytest.raises(LedgerError, match=r"this node runs twice.*stop one of the two"):
        await both_buy(clones)
    theirs = await clones.worker.read(lambda reader: reader.book(A.id))
    assert (theirs.owed, theirs.reserved_in) == (2000, 1000)  # the second job stays owed, and is shown as such
    ours = [await ledger.read(lambda reader: reader.book(B.id)) for ledger in (clones.one, clones.other)]
    assert [(book.owed, book.disputed) for book in ours] == [(-2000, 0), (-2000, 0)]
