"""What the events of the money mean: one function that turns each into rows, when it is written and when the ledger is checked.

Every sum in `accounts` and every state in `entries` and `obligations` comes from here and nowhere else, so that all of it can be made
again from the kept objects and events. Whatever grows old does so by the node's age (`nexus_edge.ledger.age`), `age` in each event;
`at` is what the clock said, for people.
"""

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from nexus_edge.errors import LedgerError
from nexus_edge.ledger.credit import DAY_MS, decayed
from nexus_edge.types import NodeId
from nexus_edge.wire.cbor import decode
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import MIB
from nexus_edge.wire.objects import Entry
from nexus_edge.wire.signing import Signed, read_stored

STREAM: Final = "money"
"""The stream of these events; the subject is the peer."""

TRUST_MS: Final = 30 * DAY_MS
"""So long after a restore a payment is taken whose purpose was forgotten with what the backup lacks: proofs are kept as long."""

ASKED_AGAIN: Final = 2
"""`held` of an entry that the creditor held, and perhaps lost. 0: it is not known to have it yet. 1: it has it."""

ALL: Final = -1
"""For `unheld_after`: entry numbers begin at 1."""

BY_LINES: Final = 2
"""`form` of events since an entry that the creditor shows counts with all before it, and every comparison of books is counted."""


class Projection:
    """Writes rows for events."""

    def __init__(self, connection: sqlite3.Connection, own: NodeId, objects: sqlite3.Connection | None = None) -> None:
        """`objects` is where signed objects are, if elsewhere."""
        self._connection = connection
        self._own = own
        self._objects = objects or connection

    def apply(self, peer: bytes, kind: str, body: Mapping[str, Any]) -> None:
        """One more event. Raises `LedgerError` for one that this version does not know."""
        at = body["at"]
        age = body.get("age", at)  # former versions went by the clock
        if kind == "restored":
            self._run("INSERT OR REPLACE INTO marks (key, value) VALUES ('restored', ?)", age)
            self._run("UPDATE accounts SET unsynchronised = 1")
            return
        self._run(
            "INSERT OR IGNORE INTO accounts (peer, prefix, private, out, inn, reserved_out, reserved_in, locked, granted, verified, "
            "verified_day, written_off, declined, openings, opened_at, quarrels, quarrelled_at, trusted_until, unsynchronised) "
            "VALUES (?, '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
            peer,
        )
        match kind:
            case "reserved":
                self._oblige(peer, "requester", body)
                self._shift(peer, reserved_out=body["price"], locked=body["stake"])
            case "released":
                self._close(body["lease"], "released")
            case "issued":
                entry = self._entry(body["entry"])
                self._insert(entry, at)
                self._head(peer, entry)
                if body["lease"] is not None:
                    self._run(
                        "UPDATE obligations SET state = 'signed', ref = ?, owed = ? WHERE lease = ?",
                        entry.object.ref,
                        entry.object.amt,
                        body["lease"],
                    )
            case "acked":
                if body.get("settles", True):
                    self._run("UPDATE accounts SET quarrels = 0 WHERE peer = ?", peer)
                if body.get("form") == BY_LINES:
                    self._take_up(body["entry"])
                self._run("UPDATE entries SET held = 1, abandoned = 0, ack = ? WHERE id = ?", body["ack"], body["entry"])
                self._pay_own(peer, self._entry(body["entry"]).object.ref, "paid")
            case "rebased":
                self._rebase(peer, body, at, age)
            case "elsewhere":
                self._run("INSERT OR REPLACE INTO refs (peer, ref, state, amt) VALUES (?, ?, 'paid', 0)", peer, body["ref"])
                self._pay_own(peer, body["ref"], "paid")
            case "declined":
                self._run(
                    "INSERT OR REPLACE INTO refs (peer, ref, state, amt) VALUES (?, ?, 'declined', ?)", peer, body["ref"], body["amount"]
                )
                self._pay_own(peer, body["ref"], "declined")
                self._shift(peer, declined=body["amount"])
            case "verified":
                value, day = self._one("SELECT verified, verified_day FROM accounts WHERE peer = ?", peer)
                today = max(day, age // DAY_MS)
                self._run(
                    "UPDATE accounts SET verified = ?, verified_day = ? WHERE peer = ?",
                    decayed(value, today - day) + body["price"],
                    today,
                    peer,
                )
            case "admitted":
                self._oblige(peer, "worker", body)
                self._shift(peer, reserved_in=body["price"])
                self._run("UPDATE accounts SET prefix = ?, private = ? WHERE peer = ?", body["prefix"], int(body["private"]), peer)
            case "owed":
                (price,) = self._one("SELECT price FROM obligations WHERE lease = ?", body["lease"])
                self._run(
                    "UPDATE obligations SET state = 'owed', ref = ?, owed = ? WHERE lease = ?", body["ref"], body["amount"], body["lease"]
                )
                self._shift(peer, reserved_in=body["amount"] - price)
            case "nothing-owed":
                self._close(body["lease"], "released")
            case "taken":
                self._take(peer, body, at, age)
            case "expected":
                self._run(
                    "INSERT OR REPLACE INTO refs (peer, ref, state, amt) VALUES (?, ?, 'expected', ?)", peer, body["ref"], body["amount"]
                )
            case "granted":
                self._run("UPDATE accounts SET granted = ? WHERE peer = ?", body["amount"], peer)
            case "written-off":
                self._shift(peer, written_off=body["amount"])
                if body["automatic"]:
                    self._run("INSERT OR REPLACE INTO marks (key, value) VALUES ('write-off', ?)", age // DAY_MS)
            case "synchronised":
                self._run("UPDATE accounts SET unsynchronised = 0 WHERE peer = ?", peer)
            case "contradicted":
                pass  # evidence for whoever asks: it changes no book
            case _:
                raise LedgerError("the ledger holds an event that this version does not know", repr(kind), "update nexus-edge")
        # What was given up and is repaid after all is no credit for the next debts.
        self._run(
            "UPDATE accounts SET written_off = min(written_off, max(0, inn - out + reserved_in)) WHERE peer = ? AND written_off > 0", peer
        )

    def _rebase(self, peer: bytes, body: Mapping[str, Any], at: int, age: int) -> None:
        """What the creditor holds is where our entries go on from."""
        head = None if body["head"] is None else self._entry(body["head"])
        if body["adopted"] and head is not None:
            self._insert(head, at, held=1)
            self._run("UPDATE accounts SET trusted_until = ? WHERE peer = ?", age + TRUST_MS, peer)
        by_lines = body.get("form") == BY_LINES
        if body["abandon"] or by_lines:
            self._shift(peer, quarrels=1)
            self._run("UPDATE accounts SET quarrelled_at = ? WHERE peer = ?", age, peer)
        if body["abandon"]:
            self._run("UPDATE entries SET abandoned = 1 WHERE debtor = ? AND creditor = ? AND held <> 1", self._own, peer)
        if body["unheld_after"] is not None:
            self._run(
                "UPDATE entries SET held = ? WHERE held = 1 AND debtor = ? AND creditor = ? AND abandoned = 0 AND n > ? AND id IS NOT ?",
                ASKED_AGAIN,
                self._own,
                peer,
                body["unheld_after"],
                body["head"],
            )
        if head is not None:
            if by_lines:
                self._take_up(head.id)
            self._run("UPDATE entries SET held = 1, abandoned = 0 WHERE id = ?", head.id)
            self._pay_own(peer, head.object.ref, "paid")
        if body["moves"]:
            self._head(peer, head)

    def _take_up(self, entry: bytes) -> None:
        """What leads to an entry that the creditor holds was given up by mistake: it is in that entry's total.

        What the creditor has not acknowledged of it is asked for again, so that the jobs hear of it for which it pays.
        """
        row = self._one("SELECT prev FROM entries WHERE id = ?", entry)
        while row is not None and (row := self._one("SELECT prev, id FROM entries WHERE id = ? AND abandoned = 1", row[0])) is not None:
            self._run("UPDATE entries SET abandoned = 0, held = CASE WHEN ack IS NULL THEN ? ELSE 1 END WHERE id = ?", ASKED_AGAIN, row[1])

    def _take(self, peer: bytes, body: Mapping[str, Any], at: int, age: int) -> None:
        entry = self._entry(body["entry"])
        what = entry.object
        self._insert(entry, at, held=1, ack=body["ack"])
        self._run("UPDATE accounts SET inn = ?, last = ? WHERE peer = ?", what.total, entry.id, peer)
        if what.what == "opening":
            self._shift(peer, openings=1)
            self._run("UPDATE accounts SET opened_at = ? WHERE peer = ?", age, peer)
            return
        self._run("UPDATE accounts SET openings = 0 WHERE peer = ?", peer)
        if what.what not in ("job", "fee"):
            return
        row = self._one(
            "SELECT lease FROM obligations WHERE peer = ? AND role = 'worker' AND ref = ? AND state = 'owed'", peer, what.ref
        )  # fmt: skip
        if row is not None:
            self._close(row[0], "paid")

    def _pay_own(self, peer: bytes, ref: bytes, state: str) -> None:
        row = self._one(
            "SELECT lease FROM obligations WHERE peer = ? AND role = 'requester' AND ref = ? AND state IN ('open', 'signed')", peer, ref
        )
        if row is not None:
            self._close(row[0], state)

    def _oblige(self, peer: bytes, role: str, body: Mapping[str, Any]) -> None:
        self._run(
            "INSERT INTO obligations (lease, peer, role, price, stake, state, owed, at) VALUES (?, ?, ?, ?, ?, 'open', 0, ?)",
            body["lease"], peer, role, body["price"], body["stake"], body.get("age", body["at"]),
        )  # fmt: skip

    def _close(self, lease: bytes, state: str) -> None:
        """An obligation ends, and what it reserved and locked is free."""
        peer, role, price, stake, was, owed = self._one(
            "SELECT peer, role, price, stake, state, owed FROM obligations WHERE lease = ?", lease
        )
        if was not in ("open", "owed", "signed"):
            return
        self._run("UPDATE obligations SET state = ? WHERE lease = ?", state, lease)
        if role == "requester":
            self._shift(peer, reserved_out=-price, locked=-stake)
        else:
            self._shift(peer, reserved_in=-(owed if was == "owed" else price))

    def _head(self, peer: bytes, entry: Signed[Entry] | None) -> None:
        total, digest = (0, None) if entry is None else (entry.object.total, entry.id)
        self._run("UPDATE accounts SET out = ?, head = ? WHERE peer = ?", total, digest, peer)

    def _insert(self, entry: Signed[Entry], at: int, *, held: int = 0, ack: bytes | None = None) -> None:
        what = entry.object
        self._run(
            "INSERT INTO entries (id, debtor, creditor, chain, seq, prev, kind, amt, total, ref, at, held, ack, abandoned) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            entry.id, what.iss, what.to, what.chain, what.seq, what.prev, what.what, what.amt, what.total, what.ref, at, held, ack,
        )  # fmt: skip

    def _entry(self, digest: bytes) -> Signed[Entry]:
        row = self._objects.execute("SELECT body, sig FROM objects WHERE id = ? AND t = 'entry'", (digest,)).fetchone()
        if row is None:
            raise LedgerError("the ledger lacks an object", f"{digest.hex()} is not in it")
        return read_stored(Entry, row[0], row[1])

    def _shift(self, peer: bytes, **changes: int) -> None:
        sums = ", ".join(f"{column} = {column} + ?" for column in changes)
        self._run(f"UPDATE accounts SET {sums} WHERE peer = ?", *changes.values(), peer)

    def _one(self, query: str, *values: Any) -> Any:
        return self._connection.execute(query, values).fetchone()

    def _run(self, query: str, *values: Any) -> None:
        self._connection.execute(query, values)


def event_map(body: bytes) -> Mapping[str, Any]:
    """What an event says. Raises `LedgerError`."""
    try:
        value = decode(body, MIB)
    except BadObject as broken:
        raise LedgerError("the ledger holds a broken event", broken.why) from None
    if not isinstance(value, dict):
        raise LedgerError("the ledger holds a broken event", "its body is no map")
    return value
