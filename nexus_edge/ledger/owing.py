"""The debtor's side: what is promised, signed, posted, and made good when the two books differ."""

import secrets

from nexus_edge.errors import LedgerError
from nexus_edge.identity import short_id
from nexus_edge.ledger.errors import SpendLimit
from nexus_edge.ledger.projection import ALL, ASKED_AGAIN, BY_LINES
from nexus_edge.ledger.recording import NO_DIGEST, Recorder
from nexus_edge.types import NOTHING, Digest, MicroCredits, NodeId
from nexus_edge.wire.limits import INTEGER
from nexus_edge.wire.objects import Ack, Entry, Lease
from nexus_edge.wire.refusals import Code
from nexus_edge.wire.signing import Signed, sign

FINAL = (Code.PAID, Code.BAD_OBJECT, Code.CONFLICT)
"""Refusals of one entry for what it is, not for where it stands."""


PATIENCE = 32
"""Times that books are compared before the creditor acknowledges another payment: honest ones differ a few times, after restores on both sides."""
PATIENCE_MS = 3_600_000


class Debtor(Recorder):
    """What we promise and owe to others."""

    def reserve(self, lease: Signed[Lease]) -> None:
        """Promise the price of a lease that we are about to offer, and lock the worker's stake in what we owe it.

        Raises `SpendLimit`, `Unsynchronised`, and `LedgerError` if the stake is more than what we owe and have not locked.
        """
        order = lease.object
        self._check_synchronised(order.to)
        promised, today = self.promised()
        limits = self._policy
        if promised + order.price > limits.spend_open:
            why = f"{promised} micro-credits are owed or promised and this is {order.price} more, the limit is {limits.spend_open}"
            raise SpendLimit("too much is promised", why, "work for others, or raise spend.open")
        if today + order.price > limits.spend_day:
            why = f"{today} micro-credits are spent and this is {order.price} more, the limit is {limits.spend_day}"
            raise SpendLimit("enough is spent for a day", why, "wait, or raise spend.day")
        free = self.book(order.to).free_stake
        if order.stake > free:
            raise LedgerError("the stake is not there", f"{order.stake} micro-credits are asked for, {free} of what we owe are not locked")
        self.keep(lease)
        self._money(order.to, "reserved", lease=lease.id, price=order.price, stake=order.stake)

    def release(self, lease: Digest) -> None:
        """Nothing will be owed for a lease of ours. What is signed already stays owed."""
        found = self._obligation(lease, "requester")
        if found is not None and found[2] == "open":
            self._money(found[0], "released", lease=lease)

    def pay(self, worker: NodeId, lease: Digest, kind: str, amount: MicroCredits, ref: Digest) -> Signed[Entry]:
        """Sign what we owe for a lease: its price (`job`) or its start fee (`fee`). The same reference again gives the same entry.

        Raises `Unsynchronised`, and `LedgerError` if the lease has other terms or is not open.
        """
        signed = self._live(worker, ref)
        if signed is not None:
            return signed
        self._check_synchronised(worker)
        found = self._obligation(lease, "requester")
        if found is None or found[0] != worker or found[2] != "open":
            raise LedgerError("nothing is owed for this lease", f"{lease.hex()[:16]} is {'not known' if found is None else found[2]}")
        order = self._order(lease)
        if (kind, amount) not in (("job", order.price), ("fee", order.start_fee)):
            raise LedgerError("the lease has other terms", f"a {kind} of {amount} is not what was agreed")
        return self._issue(worker, kind, amount, ref, lease)

    def prepaid(self, peer: NodeId, amount: MicroCredits, ref: Digest) -> Signed[Entry]:
        """We owe a peer, because it paid us elsewhere."""
        self._check_synchronised(peer)
        return self._live(peer, ref) or self._issue(peer, "prepaid", amount, ref)

    def refund(self, peer: NodeId, amount: MicroCredits, ref: Digest) -> Signed[Entry]:
        """Give back at most what a peer's entry with this reference paid. Raises `LedgerError` if there is none, or it was less."""
        self._check_synchronised(peer)
        row = self._one(
            "SELECT amt FROM entries WHERE debtor = ? AND creditor = ? AND ref = ? AND kind IN ('job', 'fee')", peer, self._own, ref
        )
        if row is None or amount > row[0]:
            raise LedgerError("a refund is at most what was paid", f"{row[0] if row else 0} micro-credits were")
        return self._live(peer, ref) or self._issue(peer, "refund", amount, ref)

    def acknowledged(self, ack: Signed[Ack]) -> Digest | None:
        """The creditor has an entry of ours: its reservation ends. Returns the reference that is paid; None for one of no entry of ours."""
        row = self._one(
            "SELECT ref, ack, kind FROM entries WHERE id = ? AND debtor = ? AND creditor = ?", ack.object.entry, self._own, ack.issuer
        )  # fmt: skip
        if row is None or ack.object.to != self._own:
            return None
        if row[1] is None or self._one("SELECT 1 FROM entries WHERE id = ? AND held <> 1", ack.object.entry):
            self.keep(ack)
            # A payment that is acknowledged for the first time ends a quarrel, and nothing that a creditor can repeat.
            settles = row[1] is None and row[2] != "opening"
            self._money(ack.issuer, "acked", entry=ack.object.entry, ack=ack.id, settles=settles, form=BY_LINES)
        return Digest(row[0])

    def refused(self, creditor: NodeId, entry: Signed[Entry], code: Code, last: Signed[Entry] | None) -> Digest | None:
        """Come to terms with a creditor who refused `entry`, the first it was not known to hold; `unacknowledged` has what to post next.

        Returns the entry's reference if that is settled: the creditor says that it is paid, or owed by nobody. What the creditor holds of
        ours that we do not know, because a backup was restored or a key copied, is ours all the same: we signed it. A chain of which an
        entry was refused is never used again; what it was for is signed in another. Raises `LedgerError` if `last` is not ours to it.
        """
        self._check_ours(creditor, last)
        found = self._one("SELECT held FROM entries WHERE id = ? AND held <> 1 AND abandoned = 0", entry.id)
        if found is None:
            return None  # a late answer: it has been settled since
        self._check_patience(creditor)
        if code not in FINAL:
            behind = self._behind(creditor, entry, last)
            if behind is not None:
                self._rebase(creditor, last, unheld_after=behind, moves=False)
                return None
        lost = self.unacknowledged(creditor, limit=INTEGER)
        # Asked for an entry again that it held, the creditor lost it, and perhaps more.
        self._rebase(creditor, last, abandon=True, unheld_after=ALL if found[0] == ASKED_AGAIN else self._lost_after(creditor, last))
        self._chains.pop(creditor, None)
        if code is Code.PAID:
            self._money(creditor, "elsewhere", ref=entry.object.ref)
        elif code in FINAL and entry.object.what != "opening":
            self._money(creditor, "declined", ref=entry.object.ref, amount=entry.object.amt)
        for one in lost:
            self._sign_again(creditor, one.object)
        return entry.object.ref if code in FINAL else None

    def informed(self, creditor: NodeId, last: Signed[Entry] | None) -> None:
        """Compare with the creditor's `last`, which comes with every answer: it may hold more of ours than we know, or less.

        One with whom books are compared all the time is not asked any more for what it has acknowledged.
        Raises `LedgerError` if `last` is not ours to it.
        """
        self._check_ours(creditor, last)
        head = self.last_entry(self._own, creditor)
        if (last and last.id) == (head and head.id) or self._is_tired(creditor):
            return
        row = self._row(last)
        if row is None or row[1]:
            if last is not None:
                self._rebase(creditor, last, unheld_after=self._lost_after(creditor, last))
                return
            # It holds nothing: all is posted again, byte for byte.
            self._rebase(creditor, None, unheld_after=ALL, moves=False)
        elif self._one("SELECT 1 FROM entries WHERE debtor = ? AND creditor = ? AND n > ? AND held = 1", self._own, creditor, row[0]):
            self._rebase(creditor, last, unheld_after=row[0], moves=False)

    def synchronised(self, peer: NodeId) -> None:
        """Our book and the peer's have been compared: entries may be issued again."""
        self._money(peer, "synchronised")

    # Steps

    def _is_tired(self, creditor: NodeId) -> bool:
        row = self._one("SELECT quarrels, quarrelled_at FROM accounts WHERE peer = ?", creditor)
        return row is not None and row[0] >= PATIENCE and self._age - row[1] < PATIENCE_MS

    def _check_patience(self, creditor: NodeId) -> None:
        if self._is_tired(creditor):
            raise LedgerError(
                "the books do not come together", f"{short_id(creditor)} refuses whatever is signed for it", "it is tried again in an hour"
            )

    def _check_ours(self, creditor: NodeId, last: Signed[Entry] | None) -> None:
        if last is not None and (last.issuer != self._own or last.object.to != creditor):
            raise LedgerError("the peer shows an entry that is not ours to it", f"issued by {short_id(last.issuer)}")
        if last is None:
            return
        what = last.object
        twin = self._one(
            "SELECT id FROM entries WHERE debtor = ? AND creditor = ? AND chain = ? AND seq = ?", self._own, creditor, what.chain, what.seq
        )
        if twin is not None and twin[0] != last.id:
            # No book can hold both: a copy of this process, memory and all, goes on elsewhere.
            raise LedgerError(
                "this node runs twice",
                f"{short_id(creditor)} holds another entry under number {what.seq} of a chain of ours",
                "stop one of the two",
            )

    def _row(self, entry: Signed[Entry] | None) -> tuple[int, int] | None:
        """Number, and whether it is abandoned."""
        found: tuple[int, int] | None = None if entry is None else self._one("SELECT n, abandoned FROM entries WHERE id = ?", entry.id)
        return found

    def _behind(self, creditor: NodeId, entry: Signed[Entry], last: Signed[Entry] | None) -> int | None:
        """The number behind which all is to be posted again, if the creditor lost what leads from `last` to the refused entry."""
        row = self._row(last)
        if (last is not None and row is None) or entry.object.prev == (NO_DIGEST if last is None else last.id):
            return None
        at, until = entry.object.prev, NO_DIGEST if last is None else last.id
        while at != until:
            before = self._one("SELECT prev FROM entries WHERE id = ? AND debtor = ? AND creditor = ?", at, self._own, creditor)
            if before is None:
                return None
            at = Digest(before[0])
        return ALL if row is None else row[0]

    def _lost_after(self, creditor: NodeId, last: Signed[Entry] | None) -> int | None:
        """The number behind which the creditor is asked again for what it held; None if all of that leads to `last`.

        What a creditor holds, it holds with all that came before. If `last` is new to us, our newest entry tells whether it still has
        ours; if it now has less than it had, it certainly lost some, and is asked for all.
        """
        held = "FROM entries WHERE debtor = ? AND creditor = ? AND held = 1 AND abandoned = 0"
        newest, most = self._one(f"SELECT max(n), max(total) {held}", self._own, creditor)
        if newest is None:
            return None
        if most > (0 if last is None else last.object.total):
            return ALL
        return newest - 1 if last is not None and self._row(last) is None else None

    def _rebase(
        self, creditor: NodeId, last: Signed[Entry] | None, *, abandon: bool = False, unheld_after: int | None = None, moves: bool = True
    ) -> None:
        adopted = last is not None and self._row(last) is None
        if adopted and last is not None:
            self.keep(last)
        self._money(
            creditor,
            "rebased",
            head=None if last is None else last.id,
            adopted=adopted,
            abandon=abandon,
            unheld_after=unheld_after,
            moves=moves,
            form=BY_LINES,
        )

    def _sign_again(self, creditor: NodeId, what: Entry) -> None:
        settled = self._one("SELECT 1 FROM refs WHERE peer = ? AND ref = ? AND state IN ('paid', 'declined')", creditor, what.ref)
        if what.what != "opening" and settled is None and self._live(creditor, what.ref) is None:
            self._issue(creditor, what.what, what.amt, what.ref)

    def _live(self, creditor: NodeId, ref: Digest) -> Signed[Entry] | None:
        """Our entry that counts for a reference: one that is not given up, or that is in the total of our head all the same.

        Nothing is signed twice within one total, whatever the creditor showed and refused before.
        """
        mine = "debtor = ? AND creditor = ? AND ref = ? AND kind != 'opening'"
        row = self._one(f"SELECT id, abandoned FROM entries WHERE {mine} ORDER BY abandoned LIMIT 1", self._own, creditor, ref)
        if row is not None and row[1]:
            row = self._one(
                "WITH RECURSIVE line (id, prev) AS (SELECT id, prev FROM entries WHERE id = (SELECT head FROM accounts WHERE peer = ?) "
                "UNION ALL SELECT e.id, e.prev FROM line JOIN entries e ON e.id = line.prev) "
                f"SELECT id FROM line WHERE id IN (SELECT id FROM entries WHERE {mine}) LIMIT 1",
                creditor, self._own, creditor, ref,
            )  # fmt: skip
        return None if row is None else self.object(Digest(row[0])).of(Entry)

    def _issue(self, creditor: NodeId, kind: str, amount: MicroCredits, ref: Digest, lease: Digest | None = None) -> Signed[Entry]:
        head = self.last_entry(self._own, creditor)
        chain = self._chains.get(creditor)
        # A chain goes on while its newest entry is the head. Another one is there if the creditor showed another entry; none, if the
        # transition that opened it was taken back: then it was never sent.
        if head is None or chain is None or head.object.chain != chain:
            chain = secrets.token_bytes(8)
            head = self._sign(creditor, chain, 0, head, "opening", NOTHING, NO_DIGEST, None)
            self._chains[creditor] = chain
        return self._sign(creditor, chain, head.object.seq + 1, head, kind, amount, ref, lease)

    def _sign(
        self,
        creditor: NodeId,
        chain: bytes,
        seq: int,
        before: Signed[Entry] | None,
        kind: str,
        amount: MicroCredits,
        ref: Digest,
        lease: Digest | None,
    ) -> Signed[Entry]:
        total = (0 if before is None else before.object.total) + amount
        if total > INTEGER:
            raise LedgerError("the account is full", f"its total would be over {INTEGER}")
        entry = Entry(
            iss=self._own, at=self._now, to=creditor, chain=chain, seq=seq, prev=NO_DIGEST if before is None else before.id, what=kind,
            amt=amount, total=MicroCredits(total), ref=ref,
        )  # fmt: skip
        signed = sign(self._key, entry)
        self.keep(signed)
        self._money(creditor, "issued", entry=signed.id, lease=lease, balance=self.book(creditor).inn - total)
        return signed
