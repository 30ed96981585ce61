"""Transitions are whole, and money moves once."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import CreditPolicy, EntryRefused, Ledger, NoCredit, SpendLimit, Transaction
from nexus_edge.ledger import ledger as ledger_module
from nexus_edge.types import Digest, JobId, MicroCredits, UnixMs
from nexus_edge.wire.objects import Ack, Entry, Lease
from nexus_edge.wire.refusals import Code
from nexus_edge.wire.signing import Signed, sign

pytestmark = pytest.mark.asyncio

A = NodeKey.from_seed(b"a" * 32)
B = NodeKey.from_seed(b"b" * 32)
ZERO = Digest(bytes(32))


def lease(price: int = 1000, number: int = 0) -> Signed[Lease]:
    return sign(
        A,
        Lease(
            iss=A.id, at=UnixMs(1), to=B.id, job=JobId(number.to_bytes(16, "big")), att=0, quote=ZERO, inc=ZERO, outm=1, commit=ZERO, model=ZERO,
            sem="tflm", params="zk-100", mode=1, price=MicroCredits(price), start_fee=MicroCredits(0), deadline_ms=1, p_ppm=0,
            stake=MicroCredits(0), audit_ms=0,
        ),
    )  # fmt: skip


def ref(number: int) -> Digest:
    return Digest(number.to_bytes(32, "big"))


async def work(requester: Ledger, worker: Ledger, number: int, price: int = 1000) -> None:
    """One job from lease to payment."""
    order = lease(price, number)
    await requester.transact("offer", lambda tx: tx.reserve(order))
    await worker.transact("admit", lambda tx: tx.admit(order, "127.0.0.1", private=True))
    await worker.transact("deliver", lambda tx: tx.owe(order.id, ref(number)))
    await requester.transact("pay", lambda tx: tx.pay(B.id, order.id, "job", MicroCredits(price), ref(number)))


async def post(requester: Ledger, worker: Ledger) -> None:
    """Post what is unacknowledged until nothing is, as the payer does."""
    for _ in range(20):
        pending = await requester.read(lambda reader: reader.unacknowledged(B.id))
        if not pending:
            return
        for entry in pending:
            try:
                ack, _ = await worker.transact("take", partial(_take, entry))
            except EntryRefused as refused:
                await requester.transact("refused", partial(_come_to_terms, entry, refused))
                break
            await requester.transact("acked", partial(_acknowledge, ack))
    raise AssertionError("the books do not come together")


def _take(entry: Signed[Entry], tx: Transaction) -> tuple[Signed[Ack], Digest | None]:
    return tx.take(entry)


def _acknowledge(ack: Signed[Ack], tx: Transaction) -> Digest | None:
    return tx.acknowledged(ack)


def _come_to_terms(entry: Signed[Entry], refused: EntryRefused, tx: Transaction) -> Digest | None:
    return tx.refused(B.id, entry, refused.code, refused.last)


async def test_one_job(tmp_path: Path) -> None:
    requester, worker = await Ledger.open(tmp_path / "a", A), await Ledger.open(tmp_path / "b", B)
    await work(requester, worker, 1)
    before = await worker.read(lambda reader: reader.book(A.id))
    assert (before.reserved_in, before.exposure, before.owed) == (1000, 1000, 0)
    await post(requester, worker)
    ours, theirs = await requester.read(lambda reader: reader.book(B.id)), await worker.read(lambda reader: reader.book(A.id))
    assert (ours.owed, ours.reserved_out, theirs.owed, theirs.reserved_in) == (-1000, 0, 1000, 0)
    line = await worker.read(lambda reader: reader.line_of(ref(1)))
    assert line is not None
    assert (line.amount, line.acknowledged) == (1000, True)
    for ledger in (requester, worker):
        assert (await ledger.verify()).faults == ()
        await ledger.close()


async def test_an_exception_after_the_first_of_two_inserts_leaves_neither(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path, A)
    order = lease()

    def breaks(tx: Transaction) -> None:
        tx.keep(order)
        tx.event("job", b"x", "created", {})
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        await ledger.transact("breaks", breaks)
    assert not await ledger.read(lambda reader: reader.holds(order.id))
    assert await ledger.read(lambda reader: reader.events("job")) == []
    await ledger.transact("works", lambda tx: tx.keep(order))
    assert await ledger.read(lambda reader: reader.holds(order.id))
    await ledger.close()


async def test_a_broken_transition_harms_no_other_of_its_batch(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path, A)

    def step(number: int) -> asyncio.Task[None]:
        def write(tx: Transaction) -> None:
            tx.event("job", bytes([number]), "created", {})
            if number % 3 == 0:
                raise RuntimeError("no")

        return asyncio.ensure_future(ledger.transact(f"t{number}", write))

    ended = await asyncio.gather(*(step(number) for number in range(60)), return_exceptions=True)
    assert [isinstance(one, RuntimeError) for one in ended] == [number % 3 == 0 for number in range(60)]
    subjects = [event.subject[0] for event in await ledger.read(lambda reader: reader.events("job"))]
    assert subjects == [number for number in range(60) if number % 3]
    await ledger.close()


async def test_two_processes_cannot_have_one_ledger(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path, A)
    with pytest.raises(LedgerError, match="in use"):
        await Ledger.open(tmp_path, A)
    await ledger.close()
    await (await Ledger.open(tmp_path, A)).close()


async def test_each_start_has_a_chain_of_its_own(tmp_path: Path) -> None:
    requester, worker = await Ledger.open(tmp_path / "a", A), await Ledger.open(tmp_path / "b", B)
    await work(requester, worker, 1)
    await requester.close()
    requester = await Ledger.open(tmp_path / "a", A)
    await work(requester, worker, 2)
    await post(requester, worker)
    lines = await requester.read(lambda reader: reader.lines())
    assert [line.kind for line in lines] == ["job", "opening", "job", "opening"]
    assert (await worker.read(lambda reader: reader.book(A.id))).owed == 2000
    await requester.close()
    await worker.close()


async def test_what_is_signed_after_a_suspend_is_in_another_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile the machine may have been copied: the first entry after it wakes up must not be the one that its copy signs."""
    asleep = [0.0]
    monkeypatch.setattr(ledger_module, "asleep_s", lambda: asleep[0])
    requester, worker = await Ledger.open(tmp_path / "a", A), await Ledger.open(tmp_path / "b", B)
    for number, slept in enumerate((0.0, 0.5, 60.0), 1):
        asleep[0] = slept
        await work(requester, worker, number)
    await post(requester, worker)
    entries = await requester.read(lambda reader: [reader.object(line.id).of(Entry) for line in reader.lines()])
    chains = [entry.object.chain for entry in entries]
    assert chains[0] == chains[1] != chains[2] == chains[3] == chains[4]
    await requester.close()
    await worker.close()


async def test_a_reference_is_paid_once(tmp_path: Path) -> None:
    requester, worker = await Ledger.open(tmp_path / "a", A), await Ledger.open(tmp_path / "b", B)
    await work(requester, worker, 1)
    order = lease(1000, 1)
    first = await requester.transact("again", lambda tx: tx.pay(B.id, order.id, "job", MicroCredits(1000), ref(1)))
    assert await requester.transact("again", lambda tx: tx.pay(B.id, order.id, "job", MicroCredits(1000), ref(1))) == first
    await post(requester, worker)
    await post(requester, worker)
    assert (await worker.read(lambda reader: reader.book(A.id))).owed == 1000
    await requester.close()
    await worker.close()


async def test_what_is_lent_and_spent_is_bounded(tmp_path: Path) -> None:
    policy = CreditPolicy(private_bucket=MicroCredits(4000), spend_open=MicroCredits(3000))
    requester, worker = await Ledger.open(tmp_path / "a", A, policy), await Ledger.open(tmp_path / "b", B, policy)
    await worker.transact("admit", lambda tx: tx.admit(lease(2000), "127.0.0.1", private=True))
    with pytest.raises(NoCredit) as refused:
        await worker.transact("admit", lambda tx: tx.admit(lease(1, 2), "127.0.0.1", private=True))
    assert refused.value.room == 0
    await worker.transact("grant", lambda tx: tx.grant(A.id, MicroCredits(500)))
    assert await worker.read(lambda reader: reader.room(A.id, "127.0.0.1", private=True)) == 500
    await requester.transact("offer", lambda tx: tx.reserve(lease(3000)))
    with pytest.raises(SpendLimit, match="too much is promised"):
        await requester.transact("offer", lambda tx: tx.reserve(lease(1, 2)))
    await requester.transact("release", lambda tx: tx.release(lease(3000).id))
    await requester.transact("offer", lambda tx: tx.reserve(lease(1, 2)))
    await requester.close()
    await worker.close()


async def test_entries_that_do_not_fit(tmp_path: Path) -> None:
    requester, worker = await Ledger.open(tmp_path / "a", A), await Ledger.open(tmp_path / "b", B)
    await work(requester, worker, 1)
    opening, job = await requester.read(lambda reader: reader.unacknowledged(B.id))
    for changes, code in (
        ({"amt": MicroCredits(999), "total": MicroCredits(999)}, Code.BAD_OBJECT),
        ({"total": MicroCredits(1001)}, Code.BAD_OBJECT),
        ({"seq": 2}, Code.GAP),
        ({"prev": ZERO}, Code.GAP),
        ({"chain": b"another!"}, Code.GAP),
        ({"ref": ref(9)}, Code.BAD_OBJECT),
        ({"what": "gift"}, Code.BAD_OBJECT),
        ({"what": "refund"}, Code.BAD_OBJECT),
        ({"seq": 0}, Code.CONFLICT),
        ({"seq": 0, "chain": b"another!"}, Code.BAD_OBJECT),
        ({"seq": 0, "chain": b"another!", "what": "opening", "amt": MicroCredits(0), "total": MicroCredits(7), "ref": ZERO}, Code.GAP),
        ({"to": A.id}, Code.BAD_OBJECT),
    ):
        await worker.transact("take", lambda tx: tx.take(opening))
        forged = sign(A, replace(job.object, **changes))
        with pytest.raises(EntryRefused) as refused:
            await worker.transact("take", partial(_take, forged))
        assert refused.value.code is code, changes
    await post(requester, worker)
    other = sign(A, replace(opening.object, chain=b"another!"))
    with pytest.raises(EntryRefused) as refused:
        await worker.transact("take", lambda tx: tx.take(other))
    assert refused.value.code is Code.REGRESS
    assert refused.value.last == job
    await requester.close()
    await worker.close()
