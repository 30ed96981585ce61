"""What the ledger says: objects, events, books. All queries of one `Reader` see one state."""

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from nexus_edge.errors import LedgerError
from nexus_edge.ledger import members
from nexus_edge.ledger.credit import DAY_MS, NOBODY_WAITS, CreditPolicy, Standing, decayed, room, share
from nexus_edge.ledger.history import Movement, movements
from nexus_edge.ledger.members import Member
from nexus_edge.ledger.projection import STREAM, event_map
from nexus_edge.ledger.rotation import Rotation
from nexus_edge.types import NOTHING, Digest, MicroCredits, NodeId, UnixMs
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import ENTRIES_PER_POST
from nexus_edge.wire.objects import OBJECTS, Entry, GroupCertificate
from nexus_edge.wire.signing import Signed, read_stored


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
    """Whether the creditor holds it."""
    abandoned: bool
    """Whether it does not count: the creditor refused its chain, and what it was for is signed again in another."""


@dataclass(frozen=True)
class Book:
    """How we stand with one peer."""

    peer: NodeId
    out: MicroCredits
    """The total of what we signed for it."""
    inn: MicroCredits
    """The total of what it signed for us."""
    reserved_out: MicroCredits
    """Promised for its open leases with us as requester, until it acknowledges the payment."""
    standing: Standing
    """As credit rules see it."""
    declined: int
    """What we signed and it does not want, because it knows of no such debt."""
    unsynchronised: bool
    """Since a restore its book has not been compared with ours."""
    member: Member | None = None
    """Of a fleet that we serve."""

    @property
    def owed(self) -> int:
        """What it owes us; negative: what we owe it."""
        return self.inn - self.out

    @property
    def reserved_in(self) -> MicroCredits:
        """Promised by it for its open leases with us as worker, and delivered but not paid."""
        return MicroCredits(self.standing.reserved_in)

    @property
    def locked(self) -> MicroCredits:
        """Of what we owe it, its stake in open leases with us as requester."""
        return MicroCredits(self.standing.locked_for)

    @property
    def granted(self) -> MicroCredits:
        """What we lend it by the owner's decision."""
        return MicroCredits(self.standing.granted)

    @property
    def verified(self) -> MicroCredits:
        """Decayed sum of prices of its jobs for us whose proof verified."""
        return MicroCredits(self.standing.verified)

    @property
    def line(self) -> MicroCredits:
        """What we lend it for its own sake."""
        return MicroCredits(self.standing.line)

    @property
    def exposure(self) -> MicroCredits:
        """What we lose if it never pays."""
        return MicroCredits(self.standing.exposure)

    @property
    def written_off(self) -> MicroCredits:
        """What it owes and we gave up."""
        return MicroCredits(self.standing.written_off)

    @property
    def disputed(self) -> MicroCredits:
        """What one side's book has and the other's has not."""
        return MicroCredits(self.standing.written_off + self.declined)

    @property
    def free_stake(self) -> MicroCredits:
        """What it may still put at stake: what we owe it and have not locked."""
        return MicroCredits(max(0, -self.owed - self.locked))


@dataclass(frozen=True)
class Account:
    """Under which name, and with which weight, a peer gets a share of the machine."""

    name: NodeId | None
    """Itself or its fleet; None for a stranger, who has no line."""
    line: int


class Reader:
    """Queries over a connection."""

    def __init__(self, connection: sqlite3.Connection, own: NodeId, policy: CreditPolicy, now: UnixMs, age: UnixMs) -> None:
        self._connection = connection
        self._own = own
        self._policy = policy
        self._now = now
        self._age = age

    @property
    def own(self) -> NodeId:
        """Whose ledger it is."""
        return self._own

    @property
    def age(self) -> UnixMs:
        """How old the node is: see `nexus_edge.ledger.age`."""
        return self._age

    def object(self, digest: Digest) -> Signed[Any]:
        """A kept object. Raises `LedgerError` if it is not here."""
        row = self._one("SELECT t, body, sig FROM objects WHERE id = ?", digest)
        if row is None:
            raise LedgerError("the ledger lacks an object", f"{digest.hex()} is not in it")
        kind = next((one for one in OBJECTS if one.kind == row[0]), None)
        if kind is None:
            raise LedgerError("the ledger holds an object that this version does not know", repr(row[0]))
        try:
            found: Signed[Any] = read_stored(kind, row[1], row[2])
        except BadObject as bad:
            raise LedgerError("the ledger holds a broken object", f"{digest.hex()}: {bad.why}") from bad
        if found.id != digest:  # a start looks only at what is new
            raise LedgerError("the ledger holds a broken object", f"{digest.hex()}: its bytes have another digest", "restore a backup")
        return found

    def holds(self, digest: Digest) -> bool:
        """Whether an object is kept."""
        return self._one("SELECT 1 FROM objects WHERE id = ?", digest) is not None

    def events(self, stream: str, subject: bytes | None = None) -> list[Event]:
        """All events of a stream in their order, or those of one subject."""
        where, values = ("stream = ?", (stream,)) if subject is None else ("stream = ? AND subject = ?", (stream, subject))
        rows = self._connection.execute(f"SELECT seq, stream, subject, kind, body FROM events WHERE {where} ORDER BY seq", values)
        return [Event(seq, stream, subject, kind, event_map(body)) for seq, stream, subject, kind, body in rows]

    def live(self, stream: str) -> dict[bytes, UnixMs | None]:
        """Subjects of a stream that are not left to the ledger yet, and how old the node was when nothing more was to be done about each."""
        rows = self._connection.execute("SELECT subject, since FROM live WHERE stream = ?", (stream,))
        return {subject: None if since is None else UnixMs(since) for subject, since in rows}

    def live_events(self, stream: str) -> list[Event]:
        """All events of those subjects, in their order."""
        rows = self._connection.execute(
            "SELECT e.seq, e.subject, e.kind, e.body FROM live l JOIN events e ON e.stream = l.stream AND e.subject = l.subject "
            "WHERE l.stream = ? ORDER BY e.seq",
            (stream,),
        )
        return [Event(seq, stream, subject, kind, event_map(body)) for seq, subject, kind, body in rows]

    def restored_since(self, stream: str, kinds: Collection[str]) -> set[bytes]:
        """Of the live subjects, those whose last event of these kinds was written before the ledger was restored from a backup: what came after is forgotten."""
        marks = ", ".join("?" * len(kinds))
        rows = self._connection.execute(
            f"SELECT e.subject FROM live l JOIN events e ON e.stream = l.stream AND e.subject = l.subject WHERE l.stream = ? AND e.kind IN ({marks}) "
            "GROUP BY e.subject HAVING max(e.seq) < (SELECT max(seq) FROM events WHERE stream = ? AND subject = x'' AND kind = 'restored')",
            (stream, *kinds, STREAM),
        )
        return {subject for (subject,) in rows}

    def memories(self, stream: str) -> dict[bytes, Mapping[str, Any]]:
        """What a part of the node remembers of what it left to the ledger, by subject."""
        return {
            subject: event_map(body)
            for subject, body in self._connection.execute("SELECT subject, body FROM memories WHERE stream = ?", (stream,))
        }

    def memory(self, stream: str, subject: bytes) -> Mapping[str, Any] | None:
        """Likewise, of one subject."""
        row = self._one("SELECT body FROM memories WHERE stream = ? AND subject = ?", stream, subject)
        return None if row is None else event_map(row[0])

    def has_events(self, stream: str, subject: bytes) -> bool:
        """Whether anything happened to a subject of a stream."""
        return self._one("SELECT 1 FROM events WHERE stream = ? AND subject = ? LIMIT 1", stream, subject) is not None

    def owed_for(self, peer: NodeId, ref: Digest) -> Digest | None:
        """The lease for which a peer owes us something under a reference."""
        row = self._one("SELECT lease FROM obligations WHERE peer = ? AND role = 'worker' AND ref = ? AND state = 'owed'", peer, ref)
        return None if row is None else Digest(row[0])

    def movements(
        self,
        limit: int = 1000,
        *,
        before: int | None = None,
        after: int | None = None,
        peer: NodeId | None = None,
        oldest_first: bool = False,
    ) -> list[Movement]:
        """What happened to money, behind number `after` and before number `before`, with all peers or one."""
        return movements(self._connection, limit, before, after, peer, oldest_first=oldest_first)

    def ack_of(self, entry: Digest) -> Digest | None:
        """The acknowledgement of an entry."""
        row = self._one("SELECT ack FROM entries WHERE id = ?", entry)
        return None if row is None or row[0] is None else Digest(row[0])

    # Books

    def book(self, peer: NodeId) -> Book:
        """How we stand with a peer."""
        return next(self._books("WHERE peer = ?", peer), None) or _unmet(peer, self.member(peer))

    def books(self) -> list[Book]:
        """How we stand with everyone we have dealt with."""
        return list(self._books("ORDER BY peer"))

    def partners(self) -> list[NodeId]:
        """Everyone we have dealt with."""
        return [NodeId(row[0]) for row in self._connection.execute("SELECT peer FROM accounts ORDER BY peer")]

    def standing(self, peer: NodeId) -> Standing:
        """A peer as credit rules see it."""
        return self.book(peer).standing

    def standings(self) -> list[Standing]:
        """All who owe us something, or are about to."""
        return [book.standing for book in self._books("WHERE inn - out + reserved_in + locked > written_off")]

    def room(self, peer: NodeId, prefix: str, *, private: bool, rotation: Rotation = NOBODY_WAITS) -> MicroCredits:
        """What a requester that asks from such an address may still draw, in turn with the prefixes that wait."""
        here = replace(self.standing(peer), prefix=prefix, private=private)
        return room(here, self.standings(), self._policy, rotation)

    def account(self, peer: NodeId) -> Account:
        """On whose account a peer is served: a fleet is one, whoever of it asks."""
        standing = self.standing(peer)
        weight = share(standing, self._policy)
        return Account(standing.group.key if standing.group is not None else peer if weight else None, weight)

    def trusted(self) -> Set[NodeId]:
        """Workers who need not prove themselves first: members of our fleets, and whoever the owner granted something."""
        granted = self._connection.execute("SELECT peer FROM accounts WHERE granted > 0")
        return {*self.members(), *(NodeId(row[0]) for row in granted)}

    # Fleets

    def members(self) -> Mapping[NodeId, Member]:
        """Everyone who belongs to one of our fleets now."""
        return members.everyone(self._connection, self._policy.groups, self._now)

    def member(self, node: NodeId) -> Member | None:
        """Of which of our fleets a node is now."""
        return members.find(self._connection, self._policy.groups, node, self._now)

    def is_new(self, certificate: Signed[GroupCertificate], peer: NodeId) -> bool:
        """Whether a certificate that a peer shows is to be kept; False for the one that is. Raises a `Refusal`."""
        return members.is_new(self._connection, self._policy.groups, certificate, peer, self._now)

    def promised(self) -> tuple[int, int]:
        """What we owe and have reserved in all, and what we have spent in 24 hours including what is reserved."""
        reserved = self._sum("SELECT sum(price) FROM obligations WHERE role = 'requester' AND state = 'open'")
        owing = self._sum("SELECT sum(max(0, out - inn)) FROM accounts")
        spent = self._sum(
            "SELECT sum(amt) FROM entries WHERE at > ? AND at < ? AND debtor = ? AND abandoned = 0 AND kind IN ('job', 'fee')",
            self._now - DAY_MS,
            self._now + DAY_MS,  # a clock that was wrong for a while does not stop all spending until it is right again
            self._own,
        )
        return owing + reserved, spent + reserved

    def _books(self, which: str, *values: Any) -> Iterator[Book]:
        rows = self._connection.execute(
            "SELECT peer, prefix, private, out, inn, reserved_out, reserved_in, locked, granted, verified, verified_day, written_off, "
            f"declined, unsynchronised FROM accounts {which}",
            values,
        ).fetchall()
        for peer, prefix, private, out, inn, reserved_out, reserved_in, locked, granted, verified, day, written, declined, behind in rows:
            member = self.member(NodeId(peer))
            standing = Standing(
                peer=peer,
                prefix=prefix,
                private=bool(private),
                owed=inn - out,
                reserved_in=reserved_in,
                locked_for=locked,
                written_off=written,
                granted=granted,
                verified=decayed(verified, self._age // DAY_MS - day),
                group=None if member is None else member.group,
            )
            yield Book(
                NodeId(peer), MicroCredits(out), MicroCredits(inn), MicroCredits(reserved_out), standing, declined, bool(behind), member
            )

    def _sum(self, query: str, *values: Any) -> int:
        return int(self._one(query, *values)[0] or 0)

    # Entries

    def lines(self, limit: int = 1000, *, before: int | None = None, peer: NodeId | None = None) -> list[Line]:
        """The newest entries of both directions, newest first."""
        rows = self._connection.execute(
            "SELECT n, id, debtor, creditor, kind, amt, total, ref, at, held, abandoned FROM entries "
            "WHERE (? IS NULL OR n < ?) AND (? IS NULL OR ? IN (debtor, creditor)) ORDER BY n DESC LIMIT ?",
            (before, before, peer, peer, limit),
        )
        return [_line(*row) for row in rows]

    def line_of(self, ref: Digest) -> Line | None:
        """The entry that pays a reference."""
        row = self._one("SELECT n FROM entries WHERE ref = ? AND abandoned = 0 AND kind != 'opening' ORDER BY n DESC", ref)
        return None if row is None else self.lines(1, before=row[0] + 1)[0]

    def last_entry(self, debtor: NodeId, creditor: NodeId) -> Signed[Entry] | None:
        """The newest entry of a debtor, as the creditor's side has taken it, or as ours has signed it."""
        column, peer = ("head", creditor) if debtor == self._own else ("last", debtor)
        row = self._one(f"SELECT {column} FROM accounts WHERE peer = ?", peer)
        return None if row is None or row[0] is None else self.object(Digest(row[0])).of(Entry)

    def unacknowledged(self, creditor: NodeId, limit: int = ENTRIES_PER_POST) -> list[Signed[Entry]]:
        """Our entries that the creditor is not known to hold, the first so many in their order: what to post."""
        rows = self._connection.execute(
            "SELECT id FROM entries WHERE debtor = ? AND creditor = ? AND abandoned = 0 AND held <> 1 ORDER BY n LIMIT ?",
            (self._own, creditor, limit),
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
        """Whom we have to post to: creditors that are not known to hold an entry of ours, and those whose book has to be compared."""
        rows = self._connection.execute(
            "SELECT creditor FROM entries WHERE debtor = ? AND abandoned = 0 AND held <> 1 "
            "UNION SELECT peer FROM accounts WHERE unsynchronised = 1",
            (self._own,),
        )
        return [NodeId(row[0]) for row in rows]

    def unsynchronised(self) -> list[NodeId]:
        """Peers whose books have not been compared since a restore."""
        return [NodeId(row[0]) for row in self._connection.execute("SELECT peer FROM accounts WHERE unsynchronised = 1")]

    def sums_since(self, at: UnixMs) -> tuple[int, int]:
        """Earned and spent since then, less what was refunded, from entries that count."""
        row = self._one(
            "SELECT sum(CASE WHEN (creditor = ?) = (kind != 'refund') THEN amt END * (CASE kind WHEN 'refund' THEN -1 ELSE 1 END)), "
            "sum(CASE WHEN (debtor = ?) = (kind != 'refund') THEN amt END * (CASE kind WHEN 'refund' THEN -1 ELSE 1 END)) "
            "FROM entries WHERE at >= ? AND abandoned = 0 AND kind IN ('job', 'fee', 'refund')",
            self._own,
            self._own,
            at,
        )
        return ((row and row[0]) or 0), ((row and row[1]) or 0)

    def _one(self, query: str, *values: Any) -> Any:
        return self._connection.execute(query, values).fetchone()


def _unmet(peer: NodeId, member: Member | None) -> Book:
    group = None if member is None else member.group
    return Book(peer, NOTHING, NOTHING, NOTHING, Standing(peer, "", False, 0, 0, 0, 0, 0, 0, group), 0, False, member)


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
    held: int,
    abandoned: int,
) -> Line:
    parties = NodeId(debtor), NodeId(creditor)
    money = MicroCredits(amount), MicroCredits(total)
    return Line(n, Digest(digest), *parties, kind, *money, Digest(ref), UnixMs(at), held == 1, bool(abandoned))
