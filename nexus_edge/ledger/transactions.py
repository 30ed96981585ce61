"""What a transition may write: objects, events, and money. All of one transition is written, or nothing."""

import secrets
import sqlite3
from collections.abc import Mapping
from typing import Any

from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.ledger.credit import CreditPolicy
from nexus_edge.ledger.errors import EntryRefused, NoCredit, SpendLimit, Unsynchronised
from nexus_edge.ledger.reading import DAY_MS, Reader
from nexus_edge.types import NOTHING, Digest, MicroCredits, NodeId, UnixMs
from nexus_edge.wire.cbor import Value, encode
from nexus_edge.wire.objects import Ack, Entry, Lease
from nexus_edge.wire.refusals import Code
from nexus_edge.wire.signing import Signed, sign

NO_DIGEST = Digest(bytes(32))
PAYING = ("job", "fee", "refund")
"""Kinds that settle something which the creditor knows of."""


class Transaction(Reader):
    """A reader that writes."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        key: NodeKey,
        policy: CreditPolicy,
        now: UnixMs,
        chains: dict[NodeId, bytes],
        *,
        restoring: bool,
    ) -> None:
        super().__init__(connection, key.id, policy, now)
        self._key = key
        self._chains = chains
        self._restoring = restoring

    def keep(self, signed: Signed[Any]) -> None:
        """Keep an object as it was signed."""
        self._run(
            "INSERT OR IGNORE INTO objects (id, t, body, sig) VALUES (?, ?, ?, ?)",
            signed.id,
            signed.object.kind,
            signed.body,
            signed.signature,
        )

    def event(self, stream: str, subject: bytes, kind: str, body: Mapping[str, Value]) -> None:
        """Append an event."""
        self._run("INSERT INTO events (stream, subject, kind, body) VALUES (?, ?, ?, ?)", stream, subject, kind, encode(body))

    # The requester's side

    def reserve(self, lease: Signed[Lease]) -> None:
        """Promise the price of a lease that we are about to offer. Raises `SpendLimit`, `Unsynchronised`."""
        order = lease.object
        self._check_synchronised(order.to)
        promised, today = self.promised()
        if promised + order.price > self._policy.spend_open:
            raise SpendLimit(
                "too much is promised", f"{promised} and {order.price} more, your limit is {self._policy.spend_open}", "raise spend.open"
            )
        if today + order.price > self._policy.spend_day:
            raise SpendLimit(
                "enough is spent for a day", f"{today} and {order.price} more, your limit is {self._policy.spend_day}", "raise spend.day"
            )
        self._meet(order.to)
        self._oblige(lease, order.to, "requester")

    def release(self, lease: Digest) -> None:
        """Nothing will be owed for a lease of ours."""
        self._run("UPDATE obligations SET state = 'released' WHERE lease = ? AND role = 'requester' AND state = 'open'", lease)

    def pay(self, worker: NodeId, lease: Digest, kind: str, amount: MicroCredits, ref: Digest) -> Signed[Entry]:
        """Sign what we owe. The same reference again gives the entry that was signed before."""
        row = self._one(
            "SELECT id FROM entries WHERE debtor = ? AND creditor = ? AND ref = ? AND abandoned = 0 AND kind != 'opening'",
            self._own,
            worker,
            ref,
        )
        if row is not None:
            return self.object(Digest(row[0])).of(Entry)
        self._check_synchronised(worker)
        self._run("UPDATE obligations SET state = 'signed', ref = ?, owed = ? WHERE lease = ? AND role = 'requester'", ref, amount, lease)
        return self._issue(worker, kind, amount, ref)

    def acknowledged(self, ack: Signed[Ack]) -> Digest | None:
        """The creditor has an entry of ours: its reservation ends. Returns the reference that is paid; None for one of no entry of ours."""
        row = self._one(
            "SELECT n, ref FROM entries WHERE id = ? AND debtor = ? AND creditor = ?", ack.object.entry, self._own, ack.issuer
        )  # fmt: skip
        if row is None or ack.object.to != self._own:
            return None
        self.keep(ack)
        self._run("UPDATE entries SET ack = ? WHERE n = ? AND ack IS NULL", ack.id, row[0])
        self._run("UPDATE obligations SET state = 'paid' WHERE ref = ? AND role = 'requester' AND state = 'signed'", row[1])
        return Digest(row[1])

    def refused(self, creditor: NodeId, entry: Signed[Entry], code: Code, last: Signed[Entry] | None) -> Digest | None:
        """Come to terms with a creditor who refused an entry; `unacknowledged` then has what to post next.

        Returns the reference of `entry` if the creditor says that it is paid. What it holds of ours that we do not know, because a backup
        was restored or a key copied, is ours all the same: we signed it. A chain of which an entry was refused is never used again.
        """
        if last is not None and (last.issuer != self._own or last.object.to != creditor):
            raise LedgerError("the peer shows an entry that is not ours to it", f"issued by {short_id(last.issuer)}")
        held = None if last is None else self._one("SELECT n, abandoned FROM entries WHERE id = ?", last.id)
        if last is not None and held is None:
            self._adopt(last)
        behind = self._behind(creditor, 0 if held is None else held[0]) if code is Code.GAP and (last is None or held is not None) else []
        if behind and behind[0][1].object.prev == (NO_DIGEST if last is None else last.id):
            # The creditor went back in time: what it had is posted again, byte for byte.
            self._connection.executemany("UPDATE entries SET ack = NULL WHERE n = ?", [(n,) for n, _ in behind])
            return None
        lost = behind or [
            (n, one) for n, one in self._behind(creditor, 0) if self._one("SELECT ack FROM entries WHERE n = ?", n)[0] is None
        ]
        self._chains.pop(creditor, None)
        self._connection.executemany("UPDATE entries SET abandoned = 1 WHERE n = ?", [(n,) for n, _ in lost])
        for _, one in lost:
            what = one.object
            is_paid = code is Code.PAID and one.id == entry.id
            if what.what != "opening" and not is_paid and self.line_of(what.ref) is None:
                self._issue(creditor, what.what, what.amt, what.ref, after=last)
        if code is not Code.PAID:
            return None
        self._run("UPDATE obligations SET state = 'paid' WHERE ref = ? AND role = 'requester'", entry.object.ref)
        return entry.object.ref

    def verified(self, worker: NodeId, price: MicroCredits) -> None:
        """A proof of the worker's holds: what it gave us raises what we lend it."""
        self._meet(worker)
        standing, day = self.standing(worker), self._now // DAY_MS
        self._run("UPDATE peers SET verified = ?, verified_day = ? WHERE peer = ?", standing.verified + price, day, worker)

    # The worker's side

    def admit(self, lease: Signed[Lease], prefix: str, *, private: bool) -> None:
        """Count the price of a lease to its requester's exposure. Raises `NoCredit`."""
        order = lease.object
        left = self.room(order.iss, prefix, private=private)
        if order.price > left:
            raise NoCredit(f"you may draw {left} micro-credits more, the job costs {order.price}", left)
        self._meet(order.iss)
        self._run("UPDATE peers SET prefix = ?, private = ? WHERE peer = ?", prefix, int(private), order.iss)
        self._oblige(lease, order.iss, "worker")

    def owe(self, lease: Digest, ref: Digest, amount: MicroCredits | None = None) -> None:
        """The lease's price, or an amount of it, is owed under a reference."""
        self._run(
            "UPDATE obligations SET state = 'owed', ref = ?, owed = coalesce(?, price) WHERE lease = ? AND role = 'worker' AND state = 'open'",
            ref,
            amount,
            lease,
        )

    def settle_nothing(self, lease: Digest) -> None:
        """Nothing is owed for a lease."""
        self._run("UPDATE obligations SET state = 'released' WHERE lease = ? AND role = 'worker' AND state = 'open'", lease)

    def take(self, entry: Signed[Entry]) -> tuple[Signed[Ack], Digest | None]:
        """Take a debtor's entry: its acknowledgement, and the lease that it pays. The same entry again gives the same acknowledgement.

        Raises `EntryRefused` with the last entry that we hold. The debtor's signature has been checked.
        """
        what = entry.object
        if what.to != self._own:
            raise EntryRefused(Code.BAD_OBJECT, "the entry is for another node", None)
        last = self.last_entry(what.iss, self._own)
        row = self._one("SELECT ack FROM entries WHERE id = ?", entry.id)
        if row is not None:
            return self.object(Digest(row[0])).of(Ack), None
        lease = self._check_entry(entry, last)
        self._meet(what.iss)
        ack = sign(self._key, Ack(iss=self._own, at=self._now, to=what.iss, entry=entry.id))
        self.keep(entry)
        self.keep(ack)
        self._insert(entry, ack=ack.id)
        self._run("UPDATE obligations SET state = 'paid' WHERE ref = ? AND role = 'worker' AND state = 'owed'", what.ref)
        return ack, lease

    def _check_entry(self, entry: Signed[Entry], last: Signed[Entry] | None) -> Digest | None:
        """The rules, in order. Returns the lease that the entry pays."""
        what = entry.object
        twin = self._one(
            "SELECT 1 FROM entries WHERE debtor = ? AND creditor = ? AND chain = ? AND seq = ?", what.iss, self._own, what.chain, what.seq
        )
        if twin is not None:
            self.keep(entry)  # two entries under one number: evidence, for whoever asks
            raise EntryRefused(Code.CONFLICT, f"another entry has number {what.seq} of this chain", last)
        paid = self._one(
            "SELECT 1 FROM entries WHERE debtor = ? AND creditor = ? AND ref = ? AND kind != 'opening'", what.iss, self._own, what.ref
        )
        if what.what != "opening" and paid is not None:
            raise EntryRefused(Code.PAID, "this reference is paid", last)
        before = NOTHING if last is None else last.object.total
        if what.seq == 0:
            if what.what != "opening" or what.amt:
                raise EntryRefused(Code.BAD_OBJECT, "a chain begins with an opening of nothing", last)
            if what.total < before:
                raise EntryRefused(Code.REGRESS, f"the total is {what.total}, we hold {before}", last)
            if what.total > before or what.prev != (NO_DIGEST if last is None else last.id):
                raise EntryRefused(Code.GAP, f"the entry follows one that we do not hold; we hold {before}", last)
            return None
        if last is None or what.chain != last.object.chain or what.seq != last.object.seq + 1 or what.prev != last.id:
            raise EntryRefused(Code.GAP, "the entry follows one that we do not hold", last)
        if what.total != before + what.amt or what.amt < 1:
            raise EntryRefused(Code.BAD_OBJECT, f"the total is {what.total}, not {before} and {what.amt}", last)
        return self._settles(what, last)

    def _settles(self, what: Entry, last: Signed[Entry]) -> Digest | None:
        """The lease that an entry pays."""
        if what.what == "prepaid":
            return None
        if what.what not in PAYING:
            raise EntryRefused(Code.BAD_OBJECT, f"no entry is of kind {what.what!r}", last)
        if what.what == "refund":
            row = self._one("SELECT amt FROM entries WHERE debtor = ? AND creditor = ? AND ref = ?", self._own, what.iss, what.ref)
            if row is None or what.amt > row[0]:
                raise EntryRefused(Code.BAD_OBJECT, "a refund is at most what was paid", last)
            return None
        row = self._one("SELECT lease, owed, state FROM obligations WHERE peer = ? AND role = 'worker' AND ref = ?", what.iss, what.ref)
        if row is None:
            if self._restoring:
                return None  # we forgot what it is for; the debtor has not
            raise EntryRefused(Code.BAD_OBJECT, "nothing is owed under this reference", last)
        if what.amt != row[1]:
            raise EntryRefused(Code.BAD_OBJECT, f"{row[1]} is owed under this reference, not {what.amt}", last)
        return Digest(row[0])

    # The owner's decisions

    def grant(self, peer: NodeId, amount: MicroCredits) -> None:
        """Lend a peer so much, whatever it did."""
        self._meet(peer)
        self._run("UPDATE peers SET granted = ? WHERE peer = ?", amount, peer)

    def prepaid(self, peer: NodeId, amount: MicroCredits, ref: Digest) -> Signed[Entry]:
        """We owe a peer, because it paid us elsewhere."""
        self._check_synchronised(peer)
        self._meet(peer)
        return self._issue(peer, "prepaid", amount, ref)

    def write_off(self, peer: NodeId, amount: MicroCredits) -> None:
        """Give up what a peer owes. A local entry: its book is its own."""
        self._run("INSERT INTO adjustments (peer, kind, amt, at, ref) VALUES (?, 'write-off', ?, ?, ?)", peer, amount, self._now, NO_DIGEST)

    def synchronised(self, peer: NodeId) -> None:
        """Our book and the peer's agree: entries may be issued again."""
        self._run("UPDATE peers SET unsynchronised = 0 WHERE peer = ?", peer)

    def audit(self, who: str, what: str, detail: str) -> int:
        """Write down who changed what by the admin socket; returns the number of the line."""
        return int(self._run("INSERT INTO audits (at, who, what, detail) VALUES (?, ?, ?, ?)", self._now, who, what, detail).lastrowid or 0)

    # Rows

    def _issue(self, creditor: NodeId, kind: str, amount: MicroCredits, ref: Digest, after: Signed[Entry] | None = None) -> Signed[Entry]:
        chain = self._chains.get(creditor)
        # A chain whose opening was taken back with its transition, or never flushed, was never sent either.
        if chain is None or self._newest(creditor, chain) is None:
            chain = secrets.token_bytes(8)
            last = after or self.last_entry(self._own, creditor)
            opening = Entry(
                iss=self._own, at=self._now, to=creditor, chain=chain, seq=0, prev=NO_DIGEST if last is None else last.id, what="opening",
                amt=NOTHING, total=NOTHING if last is None else last.object.total, ref=NO_DIGEST,
            )  # fmt: skip
            self._sign(opening)
            self._chains[creditor] = chain
        before = self._newest(creditor, chain)
        if before is None:
            raise LedgerError("the ledger contradicts itself", "a chain has no opening")
        return self._sign(
            Entry(
                iss=self._own, at=self._now, to=creditor, chain=chain, seq=before.object.seq + 1, prev=before.id, what=kind, amt=amount,
                total=MicroCredits(before.object.total + amount), ref=ref,
            )
        )  # fmt: skip

    def _newest(self, creditor: NodeId, chain: bytes) -> Signed[Entry] | None:
        row = self._one(
            "SELECT id FROM entries WHERE debtor = ? AND creditor = ? AND chain = ? ORDER BY seq DESC", self._own, creditor, chain
        )
        return None if row is None else self.object(Digest(row[0])).of(Entry)

    def _sign(self, entry: Entry) -> Signed[Entry]:
        signed = sign(self._key, entry)
        self.keep(signed)
        self._insert(signed)
        return signed

    def _adopt(self, entry: Signed[Entry]) -> None:
        """An entry of ours that only the creditor had."""
        self.keep(entry)
        self._insert(entry, ack=entry.id)

    def _behind(self, creditor: NodeId, n: int) -> list[tuple[int, Signed[Entry]]]:
        rows = self._connection.execute(
            "SELECT n, id FROM entries WHERE debtor = ? AND creditor = ? AND abandoned = 0 AND n > ? ORDER BY n", (self._own, creditor, n)
        ).fetchall()
        return [(row[0], self.object(Digest(row[1])).of(Entry)) for row in rows]

    def _insert(self, entry: Signed[Entry], ack: Digest | None = None) -> None:
        what = entry.object
        self._run(
            "INSERT INTO entries (id, debtor, creditor, chain, seq, kind, amt, total, ref, at, ack, abandoned) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            entry.id, what.iss, what.to, what.chain, what.seq, what.what, what.amt, what.total, what.ref, self._now, ack,
        )  # fmt: skip

    def _oblige(self, lease: Signed[Lease], peer: NodeId, role: str) -> None:
        order = lease.object
        self.keep(lease)
        self._run(
            "INSERT INTO obligations (lease, peer, role, price, stake, state, owed, at) VALUES (?, ?, ?, ?, ?, 'open', 0, ?)",
            lease.id, peer, role, order.price, order.stake, self._now,
        )  # fmt: skip

    def _meet(self, peer: NodeId) -> None:
        self._run(
            "INSERT OR IGNORE INTO peers (peer, prefix, private, granted, verified, verified_day, unsynchronised) VALUES (?, '', 0, 0, 0, ?, 0)",
            peer,
            self._now // DAY_MS,
        )

    def _check_synchronised(self, peer: NodeId) -> None:
        row = self._one("SELECT unsynchronised FROM peers WHERE peer = ?", peer)
        if row is not None and row[0]:
            raise Unsynchronised(
                "the ledger was restored", f"the book of {short_id(peer)} has not been compared since", "wait until it is up"
            )

    def _run(self, query: str, *values: Any) -> sqlite3.Cursor:
        return self._connection.execute(query, values)
