"""The creditor's side: whom we serve before we are paid, what we are owed, and which entries we take."""

from typing import Final

from nexus_edge.errors import LedgerError
from nexus_edge.ledger import members
from nexus_edge.ledger.credit import DAY_MS, NOBODY_WAITS, write_offs
from nexus_edge.ledger.errors import EntryRefused, NoCredit
from nexus_edge.ledger.projection import TRUST_MS
from nexus_edge.ledger.recording import NO_DIGEST, Recorder
from nexus_edge.ledger.rotation import Rotation
from nexus_edge.types import NOTHING, Digest, MicroCredits, NodeId
from nexus_edge.wire.objects import Ack, Entry, GroupCertificate, Lease
from nexus_edge.wire.refusals import Code
from nexus_edge.wire.signing import Signed, sign

OPENINGS: Final = 32
"""Chains that a debtor may open in a day without paying anything: one for each start of its process, and each is a row for ever."""
STRANGERS: Final = 1024
"""Debtors who may open an account while nothing is owed by them and none has paid before: ids cost nothing, and each is rows for ever."""
FORGOTTEN: Final = 1024
"""Payments of one debtor that are taken after a restore although it is not known what for: more than a backup of yesterday can lack."""
FORGOTTEN_OF_ALL: Final = 16 * FORGOTTEN
"""Of all debtors: names cost nothing, and each payment is rows for ever. Beyond it a debtor keeps what it signed, and asks again."""
WRITE_OFF_AFTER_MS: Final = 14 * DAY_MS


class Creditor(Recorder):
    """What others owe us."""

    def admit(self, lease: Signed[Lease], prefix: str, *, private: bool, rotation: Rotation = NOBODY_WAITS) -> int:
        """Count the price of a lease to its requester's exposure; what that takes of the newcomers' bucket. Raises `NoCredit`."""
        order = lease.object
        drawn = self.standing(order.iss).draws(order.price)
        left = self.room(order.iss, prefix, private=private, rotation=rotation)
        if order.price > left:
            raise NoCredit(order.price, left, drawn)
        self.keep(lease)
        self._money(
            order.iss, "admitted", lease=lease.id, price=order.price, stake=order.stake, prefix=prefix, private=private
        )  # fmt: skip
        return drawn

    def owe(self, lease: Digest, ref: Digest, amount: MicroCredits | None = None) -> None:
        """The lease's price, or an amount of it, is owed under a reference: only a payment or a write-off ends that."""
        found = self._obligation(lease, "worker")
        if found is not None and found[2] == "open":
            self._money(found[0], "owed", lease=lease, ref=ref, amount=found[1] if amount is None else amount)

    def settle_nothing(self, lease: Digest) -> None:
        """Nothing is owed for a lease."""
        found = self._obligation(lease, "worker")
        if found is not None and found[2] == "open":
            self._money(found[0], "nothing-owed", lease=lease)

    def expect(self, peer: NodeId, amount: MicroCredits, ref: Digest) -> None:
        """The owner paid a peer elsewhere: its entry of kind `prepaid` with this reference and amount will be taken."""
        self._money(peer, "expected", ref=ref, amount=amount)

    def grant(self, peer: NodeId, amount: MicroCredits) -> None:
        """Lend a peer so much, whatever it did; 0 takes a grant back."""
        self._money(peer, "granted", amount=amount)

    def verified(self, worker: NodeId, price: MicroCredits) -> None:
        """A proof of the worker's holds: what it gave us raises what we lend it."""
        self._money(worker, "verified", price=price)

    def write_off(self, peer: NodeId, amount: MicroCredits) -> None:
        """Give up what a peer owes, or a part. A local decision: its book is its own. Raises `LedgerError` if it owes less."""
        exposure = self.book(peer).exposure
        if not 0 < amount <= exposure:
            raise LedgerError("there is less to write off", f"{exposure} micro-credits are at risk with this peer")
        self._money(peer, "written-off", amount=amount, automatic=False)

    def write_off_overflow(self) -> dict[NodeId, MicroCredits]:
        """Give up old overflow of the newcomers' buckets, at most a tenth of each a day: the owner's donation, which has to be shown.

        What the owner paid for elsewhere is nobody's overflow. Does nothing the second time on one day of the node's age: time in which we were not up is nobody's default.
        """
        done = self._one("SELECT value FROM marks WHERE key = 'write-off'")
        if done is not None and done[0] >= self._age // DAY_MS:
            return {}
        standings = [one for one in self.standings() if one.over]
        recent = {
            one.peer: self._sum(
                "SELECT sum(price) FROM obligations WHERE peer = ? AND role = 'worker' AND at > ?", one.peer, self._age - WRITE_OFF_AFTER_MS
            )
            + self._sum("SELECT sum(amt) FROM entries WHERE debtor = ? AND creditor = ? AND kind = 'prepaid'", one.peer, self._own)
            for one in standings
        }
        given = write_offs(standings, recent, self._policy)
        for peer, amount in given.items():
            self._money(peer, "written-off", amount=amount, automatic=True)
        return {NodeId(peer): amount for peer, amount in given.items()}

    def join(self, certificate: Signed[GroupCertificate]) -> None:
        """The node that a certificate names belongs to its key's fleet. Raises a `Refusal` for one that does not hold, or is not new."""
        if self.is_new(certificate, certificate.object.node):
            members.keep(self._connection, certificate, self._now)

    # Entries

    def take(self, entry: Signed[Entry]) -> tuple[Signed[Ack], Digest | None]:
        """Take a debtor's entry: its acknowledgement, and the lease that it pays. The same entry again gives the same acknowledgement.

        Raises `EntryRefused` with the last entry that we hold, before anything is written. The debtor's signature has been checked.
        """
        what = entry.object
        row = self._one("SELECT ack FROM entries WHERE id = ?", entry.id)
        if row is not None and what.to == self._own:
            return self.object(Digest(row[0])).of(Ack), None
        lease, is_known = self._check_entry(entry)
        if not is_known:
            self._count_forgotten(entry)
        ack = sign(self._key, Ack(iss=self._own, at=self._now, to=what.iss, entry=entry.id))
        self.keep(entry)
        self.keep(ack)
        beyond = 0 if is_known else self._beyond(what)
        self._money(what.iss, "taken", entry=entry.id, ack=ack.id, balance=what.total - self.book(what.iss).out)
        if beyond > 0:
            # A debt that we would not have admitted is the debtor's word and no loan of ours: it must not take what others may draw.
            self._money(what.iss, "written-off", amount=MicroCredits(beyond), automatic=False)
        return ack, lease

    def contradicted(self, entry: Signed[Entry]) -> None:
        """Keep an entry that was refused as `conflict`: with the one that has its number it is evidence against its signer."""
        what = entry.object
        row = self._one(
            "SELECT id FROM entries WHERE debtor = ? AND creditor = ? AND chain = ? AND seq = ?", what.iss, self._own, what.chain, what.seq
        )
        if row is None or row[0] == entry.id:
            raise LedgerError("this is no contradiction", "no other entry has its number")
        # One is enough to convict, and a liar can make as many as it likes.
        if self._one("SELECT 1 FROM events WHERE stream = 'money' AND subject = ? AND kind = 'contradicted'", what.iss) is None:
            self.keep(entry)
            self._money(what.iss, "contradicted", entry=entry.id, held=row[0])

    def _check_entry(self, entry: Signed[Entry]) -> tuple[Digest | None, bool]:
        """The rules, in order. Returns the lease that the entry pays, and whether it is known here what it is for."""
        what = entry.object
        if what.to != self._own or what.iss == self._own:
            raise EntryRefused(Code.BAD_OBJECT, "the entry is for another node", None)
        last = self.last_entry(what.iss, self._own)
        twin = self._one(
            "SELECT 1 FROM entries WHERE debtor = ? AND creditor = ? AND chain = ? AND seq = ?", what.iss, self._own, what.chain, what.seq
        )
        if twin is not None:
            raise EntryRefused(Code.CONFLICT, f"another entry has number {what.seq} of this chain", last)
        if last is not None and what.chain == last.object.chain:
            return self._check_next(what, last)
        before = NOTHING if last is None else last.object.total
        is_known = self._one(
            "SELECT 1 FROM entries WHERE debtor = ? AND creditor = ? AND chain = ? AND seq = 0", what.iss, self._own, what.chain
        )
        if is_known is not None:
            raise EntryRefused(Code.REGRESS, "another chain was opened since", last)
        if what.seq != 0:
            raise EntryRefused(Code.GAP, "the chain's opening is not here", last)
        if what.what != "opening" or what.amt or what.ref != NO_DIGEST:
            raise EntryRefused(Code.BAD_OBJECT, "a chain begins with an opening of nothing", last)
        if what.total != before or what.prev != (NO_DIGEST if last is None else last.id):
            code = Code.GAP if what.total > before or last is None else Code.REGRESS
            raise EntryRefused(code, f"the opening follows another entry; its total is {what.total}, we hold {before}", last)
        row = self._one("SELECT openings, opened_at FROM accounts WHERE peer = ?", what.iss)
        if row is not None and row[0] >= OPENINGS and self._age - row[1] < DAY_MS:
            raise EntryRefused(Code.RATE, f"{row[0]} chains were opened and nothing was paid", last)
        if last is None and not self._deals_with(what.iss) and self._strangers() >= STRANGERS:
            raise EntryRefused(Code.RATE, "nothing is owed by you, and too many others opened accounts for nothing", last)
        return None, True

    def _count_forgotten(self, entry: Signed[Entry]) -> None:
        debtor = entry.object.iss
        for subject, most in ((debtor, FORGOTTEN), (b"", FORGOTTEN_OF_ALL)):
            found = self.memory("forgotten", subject)
            is_new = found is None or self._age - found["since"] >= TRUST_MS
            counted = 0 if found is None or is_new else found["n"]
            if counted >= most:
                why = f"{counted} payments were taken of which it is not known what they are for"
                raise EntryRefused(Code.RATE, why, self.last_entry(debtor, self._own))
            since = self._age if found is None or is_new else found["since"]
            self.remember("forgotten", subject, {"n": counted + 1, "since": since})

    def _beyond(self, what: Entry) -> int:
        """How much of an entry is more than the debtor could have drawn."""
        known = self.standing(what.iss)
        return what.amt - self.room(what.iss, known.prefix, private=known.private)

    def _deals_with(self, debtor: NodeId) -> bool:
        """Whether there is something that the debtor could pay."""
        query = (
            "SELECT 1 FROM obligations WHERE peer = ? AND role = 'worker' AND state IN ('open', 'owed') "
            "UNION ALL SELECT 1 FROM refs WHERE peer = ? AND state = 'expected' "
            "UNION ALL SELECT 1 FROM accounts WHERE peer = ? AND (out > 0 OR inn > 0) LIMIT 1"
        )
        return self._one(query, debtor, debtor, debtor) is not None

    def _strangers(self) -> int:
        """Debtors who opened accounts with us and never paid anything."""
        return self._sum("SELECT count(*) FROM accounts WHERE openings > 0 AND inn = 0")

    def _check_next(self, what: Entry, last: Signed[Entry]) -> tuple[Digest | None, bool]:
        before = last.object
        if what.seq != before.seq + 1 or what.prev != last.id:
            raise EntryRefused(Code.GAP, f"number {what.seq} does not follow the one that we hold, {before.seq}", last)
        if what.total != before.total + what.amt or what.amt < 1:
            raise EntryRefused(Code.BAD_OBJECT, f"the entry does not add {what.amt} to the one before, which has {before.total}", last)
        paid = self._one("SELECT 1 FROM entries WHERE ref = ? AND debtor = ? AND creditor = ?", what.ref, what.iss, self._own)
        if paid is not None:
            raise EntryRefused(Code.PAID, "this reference is paid", last)
        return self._settles(what, last)

    def _settles(self, what: Entry, last: Signed[Entry]) -> tuple[Digest | None, bool]:
        """The lease that an entry pays, and whether we know what it is for. Whatever it is for must be known here, or any peer could fill our disk and its account."""
        lease: Digest | None = None
        match what.what:
            case "job" | "fee":
                row = self._one(
                    "SELECT owed, lease FROM obligations WHERE peer = ? AND role = 'worker' AND ref = ? AND state = 'owed'",
                    what.iss,
                    what.ref,
                )
                lease = None if row is None else Digest(row[1])
                fits = row is not None and row[0] == what.amt
                # A fee is owed under the lease itself, a price under the result.
                fits = fits and (what.what == "fee") == (lease == what.ref)
            case "refund":
                row = self._one(
                    "SELECT amt FROM entries WHERE ref = ? AND debtor = ? AND creditor = ? AND kind IN ('job', 'fee') AND abandoned = 0",
                    what.ref,
                    self._own,
                    what.iss,
                )
                fits = row is not None and what.amt <= row[0]
            case "prepaid":
                row = self._one("SELECT amt FROM refs WHERE peer = ? AND ref = ? AND state = 'expected'", what.iss, what.ref)
                fits = row is not None and row[0] == what.amt
            case _:
                raise EntryRefused(Code.BAD_OBJECT, f"no entry that follows is of kind {what.what!r}", last)
        if row is None and self.owed_for(what.iss, what.ref) is None and self._trusts(what.iss):
            return None, False  # we forgot what it is for; the debtor has not
        if not fits:
            why = "nothing is owed under this reference" if row is None else f"{row[0]} is owed under this reference, as something else"
            raise EntryRefused(Code.BAD_OBJECT, why, last)
        return lease, True
