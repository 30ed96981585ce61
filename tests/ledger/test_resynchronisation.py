"""Crashes, restores of older backups, copied keys, lost, late, partial and repeated posts.

No honest node contradicts itself, nothing is paid twice, and one synchronisation makes the books equal.
"""

import random
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import cache, partial
from typing import TypeVar

import pytest

from nexus_edge.identity import NodeKey
from nexus_edge.ledger import CreditPolicy, EntryRefused, Transaction, Unsynchronised
from nexus_edge.ledger.backup import mark_restored
from nexus_edge.ledger.integrity import check, check_since
from nexus_edge.ledger.schema import prepare
from nexus_edge.ledger.sealing import read_seal, write_seal
from nexus_edge.types import Digest, JobId, MicroCredits, NodeId, UnixMs
from nexus_edge.wire.objects import Ack, Entry, Lease
from nexus_edge.wire.refusals import Code
from nexus_edge.wire.signing import Signed, sign

T = TypeVar("T")

RUNS = 2000
STEPS = 30
SLICES = 20
"""Tests that the runs are spread over: a failing one names its slice, and its message the seed."""
CHECKED = 5
"""Of so many runs one ends with making all rows again from the events, which takes as long as the run."""
ENOUGH = CreditPolicy(*(MicroCredits(2**50),) * 5)
ZERO = Digest(bytes(32))
KEYS = (NodeKey.from_seed(b"a" * 32), NodeKey.from_seed(b"b" * 32))
ROUNDS = 40
"""Posts within one synchronisation. Honest books need a handful after the worst of runs."""

Signatures = dict[tuple[NodeId, NodeId, bytes, int], Digest]


class Machine:
    """A node's key with a ledger of its own, in memory: transactions are whole, and a crash loses what the process knew."""

    def __init__(self, stack: ExitStack, key: NodeKey, signatures: Signatures, image: bytes | None = None) -> None:
        self.stack = stack
        self.key = key
        self.signatures = signatures
        self.now = UnixMs(1_800_000_000_000)
        self.connection = self.load(image)
        self.chains: dict[NodeId, bytes] = {}
        self.backups: list[bytes] = []

    def load(self, image: bytes | None) -> sqlite3.Connection:
        connection = self.stack.enter_context(closing(sqlite3.connect(":memory:", isolation_level=None)))
        connection.deserialize(image or empty())
        return connection

    def do(self, work: Callable[[Transaction], T]) -> T:
        """One transition. Whatever was signed in it is remembered, also when the machine forgets it."""
        self.now = UnixMs(self.now + 1)
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            made = work(Transaction(self.connection, self.key, ENOUGH, self.now, self.now, self.chains))
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        rows = self.connection.execute("SELECT creditor, chain, seq, id FROM entries WHERE debtor = ? AND at = ?", (self.key.id, self.now))
        for creditor, chain, seq, digest in rows:
            known = self.signatures.setdefault((self.key.id, creditor, chain, seq), digest)
            assert known == digest, "two entries under one number"
        return made

    def crash(self) -> None:
        self.chains.clear()
        self.starts()

    def starts(self) -> None:
        """What happened since the last start fits what was there then, without another look at that."""
        seal = read_seal(self.connection)
        if seal is not None:
            assert check_since(self.connection, self.key.id, seal).faults == ()
        write_seal(self.connection)

    def back_up(self) -> None:
        self.backups.append(self.connection.serialize())

    def restore(self, image: bytes) -> None:
        self.connection.close()
        self.connection = self.load(image)
        self.chains.clear()
        mark_restored(self.connection, self.key.id, self.now)

    def out(self, peer: "Machine") -> int:
        return self.do(lambda tx: tx.book(peer.key.id).out)

    def inn(self, peer: "Machine") -> int:
        return self.do(lambda tx: tx.book(peer.key.id).inn)


@cache
def empty() -> bytes:
    """A ledger without anything: making the tables takes longer than what is done with them here."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        prepare(connection)
        return connection.serialize()


class World:
    """Two nodes that buy from each other; the key of the first may be on a second machine, which buys as well."""

    def __init__(self, stack: ExitStack, seed: int) -> None:
        self.random = random.Random(seed)
        self.checks_rows = seed % CHECKED == 0
        self.stack = stack
        self.signatures: Signatures = {}
        self.nodes = [Machine(stack, key, self.signatures) for key in KEYS]
        self.copies: list[Machine] = []
        self.late: list[tuple[Machine, Signed[Entry]]] = []
        self.jobs = 0

    def buyers(self) -> list[tuple[Machine, Machine]]:
        """Who buys of whom."""
        first, second = self.nodes
        return [(first, second), (second, first), *((copy, second) for copy in self.copies)]

    def step(self) -> None:
        buyer, worker = self.random.choice(self.buyers())
        machine = self.random.choice([*self.nodes, *self.copies])
        match self.random.choices(range(7), (30, 30, 8, 10, 6, 8, 3))[0]:
            case 0:
                self.job(buyer, worker)
            case 1:
                self.post(buyer, worker)
            case 2:
                machine.crash()
            case 3:
                machine.back_up()
            case 4 if machine.backups:
                machine.restore(self.random.choice(machine.backups))
            case 5 if self.late:
                self.deliver_late()
            case 6 if not self.copies:
                self.copies.append(Machine(self.stack, KEYS[0], self.signatures, self.nodes[0].connection.serialize()))

    def job(self, buyer: Machine, worker: Machine) -> None:
        """A job from lease to payment, or to a crash on the way."""
        self.jobs += 1
        number = self.jobs
        price = MicroCredits(self.random.randint(1, 100))
        order = lease(buyer.key, worker.key.id, number, price)
        result = Digest(number.to_bytes(32, "big"))
        if self.stuck(buyer, worker):
            return
        buyer.do(lambda tx: tx.reserve(order))
        worker.do(lambda tx: tx.admit(order, "10.0.0.1", private=True))
        if self.random.random() < 0.1:
            buyer.do(lambda tx: tx.release(order.id))
            worker.do(lambda tx: tx.settle_nothing(order.id))
            return
        worker.do(lambda tx: tx.owe(order.id, result))
        if self.random.random() < 0.1:
            self.random.choice([buyer, worker]).crash()
        buyer.do(lambda tx: tx.pay(worker.key.id, order.id, "job", price, result))

    def stuck(self, buyer: Machine, worker: Machine) -> bool:
        """A restored ledger issues nothing before the books were compared; sometimes they are now."""
        if buyer.do(lambda tx: worker.key.id in tx.unsynchronised()):
            with pytest.raises(Unsynchronised):
                buyer.do(lambda tx: tx.prepaid(worker.key.id, MicroCredits(1), ZERO))
            if self.random.random() < 0.5:
                return True
            self.synchronise(buyer, worker)
        return False

    def post(self, buyer: Machine, worker: Machine) -> None:
        """A post of some of what is unacknowledged, of which the answer may be lost, and single entries may come again later."""
        pending = buyer.do(lambda tx: tx.unacknowledged(worker.key.id))
        pending = pending[: self.random.randint(0, len(pending))]
        self.late += [(worker, entry) for entry in pending if self.random.random() < 0.2]
        self.exchange(buyer, worker, pending, is_heard=self.random.random() < 0.7)

    def exchange(self, buyer: Machine, worker: Machine, pending: list[Signed[Entry]], *, is_heard: bool) -> None:
        """One request and its answer, as `POST /1/entries` has them."""
        acks: list[Signed[Ack]] = []
        for entry in pending:
            taken = take(worker, entry)
            if isinstance(taken, EntryRefused):
                if not acks:
                    if is_heard:
                        buyer.do(lambda tx: tx.refused(worker.key.id, pending[0], taken.code, taken.last))  # noqa: B023 - called here
                    return
                break
            acks.append(taken)
        if is_heard:
            newest = worker.do(lambda tx: tx.last_entry(buyer.key.id, worker.key.id))
            for ack in acks:
                buyer.do(partial(acknowledge, ack))
            buyer.do(lambda tx: tx.informed(worker.key.id, newest))

    def deliver_late(self) -> None:
        """An entry that the network kept; nobody waits for the answer."""
        worker, entry = self.late.pop(self.random.randrange(len(self.late)))
        take(worker, entry)

    def synchronise(self, buyer: Machine, worker: Machine) -> None:
        """Post until nothing is unacknowledged and both say the same."""
        for _ in range(ROUNDS):
            pending = buyer.do(lambda tx: tx.unacknowledged(worker.key.id))
            self.exchange(buyer, worker, pending, is_heard=True)
            if not buyer.do(lambda tx: tx.unacknowledged(worker.key.id)) and buyer.out(worker) == worker.inn(buyer):
                buyer.do(lambda tx: tx.synchronised(worker.key.id))
                return
        raise AssertionError("the books do not come together")

    def judge(self) -> None:
        """What must hold at the end."""
        for buyer, worker in self.buyers():
            self.synchronise(buyer, worker)
            assert buyer.out(worker) == worker.inn(buyer)
        for buyer, worker in self.buyers():
            self.synchronise(buyer, worker)
        first, second = self.nodes
        assert first.do(partial(owed, second.key.id)) + second.do(partial(owed, first.key.id)) == 0
        for worker in self.nodes:
            rows = worker.connection.execute(
                "SELECT debtor, ref, amt FROM entries WHERE creditor = ? AND kind = 'job'", (worker.key.id,)
            ).fetchall()
            assert len({ref for _, ref, _ in rows}) == len(rows), "a reference is paid twice"
            assert sum(amount for *_, amount in rows) == sum(worker.inn(other) for other in self.nodes if other is not worker)
        for buyer, worker in self.buyers():
            refs = {row[0] for row in worker.connection.execute("SELECT ref FROM entries WHERE creditor = ?", (worker.key.id,))}
            signed = buyer.connection.execute(
                "SELECT ref FROM entries WHERE debtor = ? AND abandoned = 0 AND kind = 'job'", (buyer.key.id,)
            ).fetchall()
            assert {row[0] for row in signed} <= refs, "a payment is lost"
        for machine in (*self.nodes, *self.copies) if self.checks_rows else ():
            machine.starts()
            assert check(machine.connection, machine.key.id).faults == ()


def take(worker: Machine, entry: Signed[Entry]) -> Signed[Ack] | EntryRefused:
    """What an honest debtor posts may be too early or too late, and is never wrong."""
    try:
        return worker.do(lambda tx: tx.take(entry))[0]
    except EntryRefused as refused:
        if refused.code in (Code.GAP, Code.REGRESS, Code.PAID):
            return refused
        raise


def acknowledge(ack: Signed[Ack], tx: Transaction) -> Digest | None:
    return tx.acknowledged(ack)


def owed(peer: NodeId, tx: Transaction) -> int:
    return tx.book(peer).owed


def lease(key: NodeKey, worker: NodeId, number: int, price: MicroCredits) -> Signed[Lease]:
    nothing = MicroCredits(0)
    return sign(
        key,
        Lease(
            iss=key.id, at=UnixMs(1), to=worker, job=JobId(number.to_bytes(16, "big")), att=0, quote=ZERO, inc=ZERO, outm=1, commit=ZERO,
            model=ZERO, sem="tflm", params="zk-100", mode=1, price=price, start_fee=nothing, deadline_ms=1, p_ppm=0, stake=nothing, audit_ms=0,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("part", range(SLICES))
def test_books_come_together(part: int) -> None:
    for seed in range(part, RUNS, SLICES):
        with ExitStack() as stack:
            world = World(stack, seed)
            try:
                for _ in range(STEPS):
                    world.step()
                world.judge()
            except BaseException as failed:
                failed.add_note(f"seed {seed}")
                raise
