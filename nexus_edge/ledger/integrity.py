"""Whether a ledger is sound: the file, every object and signature, every chain, and that the rows say what objects and events say.

(`NOT INDEXED` where rows are asked for by their numbers: the planner would rather read all of a smaller index.)

On demand all of it; at a start what is new since the last one. What was good then, and was never changed since but by a fault of the disk or
by hand, is found by `nexus-edge ledger verify`, by the first look at the agent's status, and, object by object, where it is read.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, Final

from nexus_edge.errors import LedgerError
from nexus_edge.ledger import members
from nexus_edge.ledger.projection import STREAM, Projection, event_map
from nexus_edge.ledger.schema import PROJECTION, prepare
from nexus_edge.ledger.sealing import OPEN, Seal, changeable, unseal
from nexus_edge.types import NodeId
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.objects import OBJECTS, Ack, Lease
from nexus_edge.wire.signing import Signed, envelope, read_signed, read_stored

FAULTS: Final = 100
"""Faults that are listed: whoever has more has another problem."""

KINDS: Final = {one.kind: one for one in OBJECTS}


@dataclass(frozen=True)
class Report:
    """What was looked at, and what is wrong."""

    objects: int
    entries: int
    events: int
    first: int | None
    """Number of the first entry; None without one."""
    last: int | None
    faults: tuple[str, ...]
    signatures: int
    """How many were checked."""


_NOTHING: Final = Seal(0, 0, 0)


def check(connection: sqlite3.Connection, own: NodeId, seal: Seal | None = None) -> Report:
    """Look at everything, or with a seal at what is new since: if that does not fit, at everything after all.

    Raises `sqlite3.DatabaseError` if the file cannot be read.
    """
    if seal is not None:
        report = check_since(connection, own, seal)
        if not report.faults:
            return report
    return check_since(connection, own, _NOTHING)


def check_since(connection: sqlite3.Connection, own: NodeId, seal: Seal) -> Report:
    """Look at what is new since a seal, and at nothing else."""
    faults = tuple(islice(_faults(connection, own, seal), FAULTS))
    objects, events, entries = (
        connection.execute(f"SELECT count(*) FROM {table} NOT INDEXED WHERE {key} > ?", (after,)).fetchone()[0]
        for table, key, after in (("objects", "n", seal.objects), ("events", "seq", seal.events), ("entries", "n", seal.entries))
    )
    first, last = (connection.execute(f"SELECT {one}(n) FROM entries NOT INDEXED").fetchone()[0] for one in ("min", "max"))
    return Report(objects, entries, events, first, last, faults, objects)


def _faults(connection: sqlite3.Connection, own: NodeId, seal: Seal) -> Iterator[str]:
    if seal == _NOTHING:
        for (found,) in connection.execute("PRAGMA integrity_check(10)"):
            if found != "ok":
                yield f"file: {found}"
    for digest, kind, body, signature in connection.execute(
        "SELECT id, t, body, sig FROM objects NOT INDEXED WHERE n > ?", (seal.objects,)
    ):
        try:
            signed: Signed[Any] = read_signed(envelope(body, signature), KINDS[kind])
        except (BadObject, KeyError) as broken:
            yield f"object {digest.hex()[:16]}: {broken}"
            continue
        if signed.id != digest:
            yield f"object {digest.hex()[:16]}: its bytes have another digest"
    yield from _chains(connection, own, seal)
    yield from _acknowledgements(connection, own, seal)
    yield from _leases(connection, own, seal)
    yield from members.faults(connection)
    yield from _projection(connection, own, seal)


def _chains(connection: sqlite3.Connection, own: NodeId, seal: Seal) -> Iterator[str]:
    """Every entry adds to the one before it in its chain. What it says is compared with what was signed by `_projection`."""
    rows = connection.execute(
        "SELECT e.n, e.prev, e.total - e.amt, b.id, b.total FROM entries e NOT INDEXED JOIN entries b "
        "ON b.debtor = e.debtor AND b.creditor = e.creditor AND b.chain = e.chain AND b.seq = e.seq - 1 WHERE e.n > ? ORDER BY e.n",
        (seal.entries,),
    )
    for n, prev, begins, before, total in rows:
        if (before, total) != (prev, begins):
            yield f"entry #{n} does not follow the one before it"
    # What we took follows without a gap over all chains of a debtor.
    last = {} if seal == _NOTHING else dict(connection.execute("SELECT peer, last FROM sealed_accounts WHERE last IS NOT NULL"))
    for n, debtor, digest, prev in connection.execute(
        "SELECT n, debtor, id, prev FROM entries NOT INDEXED WHERE creditor = ? AND n > ? ORDER BY n", (own, seal.entries)
    ):
        if prev != last.get(debtor, bytes(32)):
            yield f"entry #{n} does not follow the one that was taken before it"
        last[debtor] = digest


def _acknowledgements(connection: sqlite3.Connection, own: NodeId, seal: Seal) -> Iterator[str]:
    """Of entries that are new, or were not acknowledged when the seal was made."""
    rows = connection.execute(
        "SELECT e.n, e.id, e.creditor, o.body, o.sig FROM entries e LEFT JOIN objects o ON o.id = e.ack AND o.t = 'ack' "
        "WHERE e.n IN (SELECT n FROM entries NOT INDEXED WHERE n > ? UNION SELECT n FROM sealed_entries) AND (e.ack IS NOT NULL OR e.creditor = ?)",
        (seal.entries, own),
    )
    for n, digest, creditor, body, signature in rows:
        ack = None if body is None else _stored(Ack, body, signature)
        if ack is None or (ack.object.iss, ack.object.entry) != (creditor, digest):
            yield f"entry #{n}: its acknowledgement is missing, or is of another entry"


def _leases(connection: sqlite3.Connection, own: NodeId, seal: Seal) -> Iterator[str]:
    new = f"SELECT id FROM objects NOT INDEXED WHERE n > {seal.objects} UNION SELECT lease FROM obligations WHERE {OPEN}"
    which = "" if seal == _NOTHING else f"WHERE b.lease IN ({new})"
    rows = connection.execute(
        "SELECT b.lease, b.peer, b.role, b.price, b.stake, o.body, o.sig FROM obligations b "
        f"LEFT JOIN objects o ON o.id = b.lease AND o.t = 'lease' {which}"
    )
    for lease, peer, role, price, stake, body, signature in rows:
        signed = None if body is None else _stored(Lease, body, signature)
        parties = (own, peer) if role == "requester" else (peer, own)
        if signed is None or (signed.object.iss, signed.object.to, signed.object.price, signed.object.stake) != (*parties, price, stake):
            yield f"lease {lease.hex()[:16]}: it is missing, or was signed with other terms"


def _projection(connection: sqlite3.Connection, own: NodeId, seal: Seal) -> Iterator[str]:
    """Make rows again, from events and objects, in a temporary database that spills to the disk, and compare."""
    with closing(sqlite3.connect("", isolation_level=None)) as again:
        prepare(again)
        again.execute("BEGIN")
        if seal != _NOTHING:
            unseal(connection, again)
        projection = Projection(again, own, objects=connection)
        events = connection.execute(
            "SELECT seq, subject, kind, body FROM events NOT INDEXED WHERE seq > ? AND stream = ? ORDER BY seq", (seal.events, STREAM)
        )
        for seq, subject, kind, body in events:
            try:
                projection.apply(subject, kind, event_map(body))
            except (LedgerError, BadObject, KeyError, TypeError, sqlite3.Error) as broken:
                yield f"event #{seq} cannot be read: {broken}"
                return
        partly = () if seal == _NOTHING else ("obligations", "entries")
        for table in PROJECTION:
            if table not in partly:
                yield from _compared(connection, again, table)
        for table, names, ours, made in changeable(connection, again, seal) if partly else ():
            if ours != made:
                yield f"{table}: {_difference(names, ours, made)}"


def _compared(connection: sqlite3.Connection, again: sqlite3.Connection, table: str) -> Iterator[str]:
    """The first difference of all rows of a table: those behind a missing row would all differ."""
    names = list(PROJECTION[table][0])
    order = "peer, ref" if table == "refs" else "1"
    query = f"SELECT {', '.join(names)} FROM {table} ORDER BY {order}"
    for ours, made in zip_longest(connection.execute(query), again.execute(query)):
        if ours != made:
            yield f"{table}: {_difference(names, ours, made)}"
            return


def _difference(names: list[str], ours: tuple[Any, ...] | None, made: tuple[Any, ...] | None) -> str:
    if ours is None or made is None:
        found = ours or made or ()
        return f"a row is {'missing' if ours is None else 'there that no event explains'}: {_shown(found[0])}"
    column, one, other = next((name, one, other) for name, one, other in zip(names, ours, made, strict=True) if one != other)
    return f"{column} of {_shown(ours[0])} is {_shown(one)}, its events make it {_shown(other)}"


def _shown(value: object) -> str:
    return value.hex()[:16] if isinstance(value, bytes) else str(value)


def _stored(kind: Any, body: bytes, signature: bytes) -> Signed[Any] | None:
    try:
        return read_stored(kind, body, signature)
    except BadObject:
        return None
