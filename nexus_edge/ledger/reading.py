"""What the ledger says: objects, events, books. All queries of one `Reader` see one state."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexus_edge.errors import LedgerError
from nexus_edge.ledger.credit import CreditPolicy, Standing, decayed, room
from nexus_edge.types import Digest, MicroCredits, NodeId, UnixMs
from nexus_edge.wire.cbor import decode
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import MIB
from nexus_edge.wire.objects import OBJECTS, Entry
from nexus_edge.wire.signing import Signed, read_stored

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Event:
    """Something that a state machine wrote."""

    seq: int
    stream: str
    subject: bytes
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """An entry as the book shows it."""

    n: int
    id: Digest
    debtor: NodeId
    creditor: NodeId
    kind: str
    amount: MicroCredits
    total: MicroCredits
    ref: Digest
    at: UnixMs
    acknowledged: bool
    abandoned: bool


@dataclass(frozen=True)
class Book:
    """How we stand with one peer."""

    peer: NodeId
    out: MicroCredits
    """The highest total we signed for it."""
    inn: MicroCredits
    """The highest total it signed for us."""
    reserved_out: MicroCredits
    """Promised for its open leases with us as requester."""
    reserved_in: MicroCredits
    """Promised by it for its open leases with us as worker, and delivered but not paid."""
    locked: MicroCredits
    granted: MicroCredits
    verified: MicroCredits
    line: MicroCredits
    exposure: MicroCredits
    written_off: MicroCredits
    unsynchronised: bool

    @property
    def owed(self) -> int:
        """What it owes us; negative: what we owe it."""
        return self.inn - self.out


class Reader:
    """Queries over a connection."""

    def __init__(self, connection: sqlite3.Connection, own: NodeId, policy: CreditPolicy, now: UnixMs) -> None:
        self._connection = connection
        self._own = own
        self._policy = policy
        self._now = now

    @property
    def own(self) -> NodeId:
        """Whose ledger it is."""
        return self._own

    def object(self, digest: Digest) -> Signed[Any]:
        """A kept object. Raises `LedgerError` if it is not here."""
        row = self._one("SELECT t, body, sig FROM objects WHERE id = ?", digest)
        if row is None:
            raise LedgerError("the ledger lacks an object", f"{digest.hex()} is not in it")
        kind = next((one for one in OBJECTS if one.kind == row[0]), None)
        if kind is None:
            raise LedgerError("the ledger holds an object that this version does not know", repr(row[0]))
        try:
            return read_stored(kind, row[1], row[2])
        except BadObject as bad:
            raise LedgerError("the ledger holds a broken object", f"{digest.hex()}: {bad.why}") from bad

    def holds(self, digest: Digest) -> bool:
        """Whether an object is kept."""
        return self._one("SELECT 1 FROM objects WHERE id = ?", digest) is not None

    def events(self, stream: str, subject: bytes | None = None) -> list[Event]:
        """All events of a stream in their order, or those of one subject."""
        where, values = ("stream = ?", (stream,)) if subject is None else ("stream = ? AND subject = ?", (stream, subject))
        rows = self._connection.execute(f"SELECT seq, stream, subject, kind, body FROM events WHERE {where} ORDER BY seq", values)
        return [Event(seq, stream, subject, kind, _map(body)) for seq, stream, subject, kind, body in rows]

    # Books

    def book(self, peer: NodeId) -> Book:
        """How we stand with a peer."""
        standing = self.standing(peer)
        row = self._one("SELECT unsynchronised FROM peers WHERE peer = ?", peer)
        reserved_out, locked = self._reserved(peer, "requester")
        return Book(
            peer=peer,
            out=self.total(self._own, peer),
            inn=self.total(peer, self._own),
            reserved_out=MicroCredits(reserved_out),
            reserved_in=MicroCredits(standing.reserved_in),
            locked=MicroCredits(locked),
            granted=MicroCredits(standing.granted),
            verified=MicroCredits(standing.verified),
            line=MicroCredits(standing.line),
            exposure=MicroCredits(standing.exposure),
            written_off=MicroCredits(standing.written_off),
            unsynchronised=bool(row and row[0]),
        )

    def books(self) -> list[Book]:
        """How we stand with everyone we have dealt with."""
        return [self.book(peer) for peer in self.partners()]

    def partners(self) -> list[NodeId]:
        """Everyone we have dealt with."""
        rows = self._connection.execute("SELECT peer FROM peers ORDER BY peer")
        return [NodeId(row[0]) for row in rows]

    def total(self, debtor: NodeId, creditor: NodeId) -> MicroCredits:
        """The highest total of entries that count."""
        row = self._one("SELECT max(total) FROM entries WHERE debtor = ? AND creditor = ? AND abandoned = 0", debtor, creditor)
        return MicroCredits((row and row[0]) or 0)

    def standing(self, peer: NodeId) -> Standing:
        """A peer as credit rules see it."""
        row = self._one("SELECT prefix, private, granted, verified, verified_day FROM peers WHERE peer = ?", peer)
        prefix, private, granted, verified, day = row or ("", 0, 0, 0, 0)
        reserved_in, _ = self._reserved(peer, "worker")
        written = self._one("SELECT sum(amt) FROM adjustments WHERE peer = ? AND kind = 'write-off'", peer)
        return Standing(
            peer=peer,
            prefix=prefix,
            private=bool(private),
            owed=self.total(peer, self._own) - self.total(self._own, peer),
            reserved_in=reserved_in,
            locked_for=self._reserved(peer, "requester")[1],
            written_off=(written and written[0]) or 0,
            granted=granted,
            verified=decayed(verified, self._now // DAY_MS - day),
        )

    def standings(self) -> list[Standing]:
        """All of them."""
        return [self.standing(peer) for peer in self.partners()]

    def room(self, peer: NodeId, prefix: str, *, private: bool) -> MicroCredits:
        """What a requester that asks from such an address may still draw."""
        known = self.standing(peer)
        here = Standing(**{**known.__dict__, "prefix": prefix, "private": private})
        return room(here, self.standings(), self._policy)

    def promised(self) -> tuple[int, int]:
        """What we owe and have reserved in all, and what we have spent in 24 hours including what is reserved."""
        row = self._one("SELECT sum(price) FROM obligations WHERE role = 'requester' AND state = 'open'")
        reserved = (row and row[0]) or 0
        owing = sum(max(0, -self.standing(peer).owed) for peer in self.partners())
        spent = self._one(
            "SELECT sum(amt) FROM entries WHERE debtor = ? AND abandoned = 0 AND at > ? AND kind IN ('job', 'fee')",
            self._own,
            self._now - DAY_MS,
        )
        return owing + reserved, ((spent and spent[0]) or 0) + reserved

    def _reserved(self, peer: NodeId, role: str) -> tuple[int, int]:
        """Price and stake of open obligations, a fee instead of the price where only that is owed."""
        row = self._one(
            "SELECT sum(CASE state WHEN 'owed' THEN owed ELSE price END), sum(stake) FROM obligations "
            "WHERE peer = ? AND role = ? AND state IN ('open', 'owed')",
            peer,
            role,
        )
        return ((row and row[0]) or 0), ((row and row[1]) or 0)

    # Entries

    def lines(self, limit: int = 1000, *, before: int | None = None, peer: NodeId | None = None) -> list[Line]:
        """The newest entries of both directions, newest first."""
        rows = self._connection.execute(
            "SELECT n, id, debtor, creditor, kind, amt, total, ref, at, ack, abandoned FROM entries "
            "WHERE (? IS NULL OR n < ?) AND (? IS NULL OR ? IN (debtor, creditor)) ORDER BY n DESC LIMIT ?",
            (before, before, peer, peer, limit),
        )
        return [_line(*row) for row in rows]

    def line_of(self, ref: Digest) -> Line | None:
        """The entry that pays a reference."""
        row = self._one("SELECT n FROM entries WHERE ref = ? AND abandoned = 0 AND kind != 'opening' ORDER BY n DESC", ref)
        return None if row is None else self.lines(1, before=row[0] + 1)[0]

    def last_entry(self, debtor: NodeId, creditor: NodeId) -> Signed[Entry] | None:
        """The last entry that counts."""
        row = self._one(
            "SELECT id FROM entries WHERE debtor = ? AND creditor = ? AND abandoned = 0 ORDER BY total DESC, n DESC LIMIT 1",
            debtor,
            creditor,
        )
        return None if row is None else self.object(Digest(row[0])).of(Entry)

    def unacknowledged(self, creditor: NodeId) -> list[Signed[Entry]]:
        """Our entries that the creditor has not acknowledged, in their order."""
        rows = self._connection.execute(
            "SELECT id FROM entries WHERE debtor = ? AND creditor = ? AND abandoned = 0 AND ack IS NULL ORDER BY n", (self._own, creditor)
        )
        return [self.object(Digest(row[0])).of(Entry) for row in rows.fetchall()]

    def entries_after(self, creditor: NodeId, chain: bytes, seq: int, limit: int) -> list[Signed[Entry]]:
        """Our entries for a creditor behind the one it names; all if it names none of ours."""
        row = self._one(
            "SELECT n FROM entries WHERE debtor = ? AND creditor = ? AND chain = ? AND seq = ?", self._own, creditor, chain, seq
        )
        rows = self._connection.execute(
            "SELECT id FROM entries WHERE debtor = ? AND creditor = ? AND abandoned = 0 AND n > ? ORDER BY n LIMIT ?",
            (self._own, creditor, row[0] if row else 0, limit),
        )
        return [self.object(Digest(row[0])).of(Entry) for row in rows.fetchall()]

    def debts(self) -> list[NodeId]:
        """Creditors with entries that they have not acknowledged."""
        rows = self._connection.execute(
            "SELECT DISTINCT creditor FROM entries WHERE debtor = ? AND abandoned = 0 AND ack IS NULL", (self._own,)
        )
        return [NodeId(row[0]) for row in rows]

    def unsynchronised(self) -> list[NodeId]:
        """Peers whose books have not been compared since a restore."""
        return [NodeId(row[0]) for row in self._connection.execute("SELECT peer FROM peers WHERE unsynchronised = 1")]

    def sums_since(self, at: UnixMs) -> tuple[int, int]:
        """Earned and spent since then, from entries that count."""
        row = self._one(
            "SELECT sum(CASE WHEN creditor = ? THEN amt ELSE 0 END), sum(CASE WHEN debtor = ? THEN amt ELSE 0 END) FROM entries "
            "WHERE abandoned = 0 AND kind IN ('job', 'fee') AND at >= ?",
            self._own,
            self._own,
            at,
        )
        return ((row and row[0]) or 0), ((row and row[1]) or 0)

    def _one(self, query: str, *values: Any) -> Any:
        return self._connection.execute(query, values).fetchone()


def _line(
    n: int,
    digest: bytes,
    debtor: bytes,
    creditor: bytes,
    kind: str,
    amount: int,
    total: int,
    ref: bytes,
    at: int,
    ack: bytes | None,
    abandoned: int,
) -> Line:
    parties = NodeId(debtor), NodeId(creditor)
    money = MicroCredits(amount), MicroCredits(total)
    return Line(n, Digest(digest), *parties, kind, *money, Digest(ref), UnixMs(at), ack is not None, bool(abandoned))


def _map(body: bytes) -> Mapping[str, Any]:
    value = decode(body, MIB)
    if not isinstance(value, dict):
        raise LedgerError("the ledger holds a broken event", "its body is no map")
    return value
