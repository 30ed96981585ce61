"""Two nodes' ledgers, and jobs between them."""

from pathlib import Path

from nexus_edge.identity import NodeKey
from nexus_edge.ledger import Ledger
from nexus_edge.types import Digest, JobId, MicroCredits, NodeId, UnixMs
from nexus_edge.wire.objects import Lease
from nexus_edge.wire.signing import Signed, sign

A = NodeKey.from_seed(b"a" * 32)
B = NodeKey.from_seed(b"b" * 32)
ZERO = Digest(bytes(32))


def lease(price: int = 1000, number: int = 0, *, key: NodeKey = A, to: NodeId = B.id, fee: int = 0, stake: int = 0) -> Signed[Lease]:
    """An order that says nothing but what money needs."""
    return sign(
        key,
        Lease(
            iss=key.id, at=UnixMs(1), to=to, job=JobId(number.to_bytes(16, "big")), att=0, quote=ZERO, inc=ZERO, outm=1, commit=ZERO, model=ZERO,
            sem="tflm", params="zk-100", mode=1, price=MicroCredits(price), start_fee=MicroCredits(fee), deadline_ms=1, p_ppm=0,
            stake=MicroCredits(stake), audit_ms=0,
        ),
    )  # fmt: skip


def ref(number: int) -> Digest:
    """What a result would be called."""
    return Digest(number.to_bytes(32, "big"))


async def work(requester: Ledger, worker: Ledger, number: int, price: int = 1000) -> None:
    """One job of A's for B, from lease to payment."""
    order = lease(price, number)
    await requester.transact("offer", lambda tx: tx.reserve(order))
    await worker.transact("admit", lambda tx: tx.admit(order, "127.0.0.1", private=True))
    await worker.transact("deliver", lambda tx: tx.owe(order.id, ref(number)))
    await requester.transact("pay", lambda tx: tx.pay(B.id, order.id, "job", MicroCredits(price), ref(number)))


async def settle(requester: Ledger, worker: Ledger) -> None:
    """Post what A owes, and take it."""
    for entry in await requester.read(lambda reader: reader.unacknowledged(B.id)):
        ack, _ = await worker.transact("take", lambda tx: tx.take(entry))  # noqa: B023 - awaited here
        await requester.transact("acknowledged", lambda tx: tx.acknowledged(ack))  # noqa: B023


async def trade(folder: Path, jobs: int) -> tuple[Ledger, Ledger]:
    """Two ledgers after so many settled jobs."""
    requester, worker = await Ledger.open(folder / "a", A), await Ledger.open(folder / "b", B)
    for number in range(1, jobs + 1):
        await work(requester, worker, number)
    await settle(requester, worker)
    return requester, worker
