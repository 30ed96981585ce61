"""Whether a ledger is sound: the file, every object and signature, every chain, and that the rows say what objects and events say."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, Final

from blake3 import blake3

from nexus_edge.errors import LedgerError
from nexus_edge.ledger import members
from nexus_edge.ledger.projection import STREAM, Projection, event_map
from nexus_edge.ledger.schema import PROJECTION, prepare
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


@dataclass(frozen=True)
class Seal:
    """Objects whose signatures were checked: all up to a number, and the digest of their bytes."""

    n: int
    digest: bytes


def read_seal(connection: sqlite3.Connection) -> Seal | None:
    """What the last check found good."""
    row = connection.execute("SELECT n, digest FROM seals").fetchone()
    return None if row is None else Seal(row[0], row[1])


def make_seal(connection: sqlite3.Connection) -> Seal:
    """Over all objects there are now."""
    n = connection.execute("SELECT max(n) FROM objects").fetchone()[0] or 0
    return Seal(n, _digest(connection, n))


def write_seal(connection: sqlite3.Connection, seal: Seal) -> None:
    """Keep it for the next start."""
    connection.execute("DELETE FROM seals")
    connection.execute("INSERT INTO seals (n, digest) VALUES (?, ?)", (seal.n, seal.digest))


def check(connection: sqlite3.Connection, own: NodeId, seal: Seal | None = None) -> Report:
    """Look at everything. Signatures, which take most of the time, are checked only of what is not as it was when it was sealed.

    Raises `sqlite3.DatabaseError` if the file cannot be read.
    """
    signed_after = seal.n if seal is not None and _digest(connection, seal.n) == seal.digest else 0
    faults = tuple(islice(_faults(connection, own, signed_after), FAULTS))
    objects, entries, events = (
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("objects", "entries", "events")
    )
    signatures = connection.execute("SELECT count(*) FROM objects WHERE n > ?", (signed_after,)).fetchone()[0]
    first, last = connection.execute("SELECT min(n), max(n) FROM entries").fetchone()
    return Report(objects, entries, events, first, last, faults, signatures)


def _faults(connection: sqlite3.Connection, own: NodeId, signed_after: int) -> Iterator[str]:
    for (found,) in connection.execute("PRAGMA integrity_check(10)"):
        if found != "ok":
            yield f"file: {found}"
    for digest, kind, body, signature in connection.execute("SELECT id, t, body, sig FROM objects WHERE n > ?", (signed_after,)):
        try:
            signed: Signed[Any] = read_signed(envelope(body, signature), KINDS[kind])
        except (BadObject, KeyError) as broken:
            yield f"object {digest.hex()[:16]}: {broken}"
            continue
        if signed.id != digest:
            yield f"object {digest.hex()[:16]}: its bytes have another digest"
    yield from _chains(connection, own)
    yield from _acknowledgements(connection, own)
    yield from _leases(connection, own)
    yield from members.faults(connection)
    yield from _projection(connection, own)


def _digest(connection: sqlite3.Connection, n: int) -> bytes:
    hasher = blake3(derive_key_context="nexus-edge 1 ledger seal")
    for row in connection.execute("SELECT n, id, t, body, sig FROM objects WHERE n <= ? ORDER BY n", (n,)):
        for part in (str(row[0]).encode(), row[1], row[2].encode(), row[3], row[4]):
            hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.digest()


def _chains(connection: sqlite3.Connection, own: NodeId) -> Iterator[str]:
    """Every entry adds to the one before it in its chain. What it says is compared with what was signed by `_projection`."""
    rows = connection.execute("SELECT n, id, chain, seq, prev, amt, total FROM entries ORDER BY debtor, creditor, chain, seq")
    before: tuple[bytes, int, bytes, int] | None = None
    for n, digest, chain, seq, prev, amount, total in rows:
        if before is not None and (before[0], before[1] + 1) == (chain, seq) and (before[2], before[3] + amount) != (prev, total):
            yield f"entry #{n} does not follow the one before it"
        before = (chain, seq, digest, total)
    # What we took follows without a gap over all chains of a debtor.
    last: tuple[bytes, bytes] | None = None
    for n, debtor, digest, prev in connection.execute(
        "SELECT n, debtor, id, prev FROM entries WHERE creditor = ? ORDER BY debtor, n", (own,)
    ):
        if prev != (last[1] if last is not None and last[0] == debtor else bytes(32)):
            yield f"entry #{n} does not follow the one that was taken before it"
        last = (debtor, digest)


def _acknowledgements(connection: sqlite3.Connection, own: NodeId) -> Iterator[str]:
    rows = connection.execute(
        "SELECT e.n, e.id, e.creditor, o.body, o.sig FROM entries e LEFT JOIN objects o ON o.id = e.ack AND o.t = 'ack' "
        "WHERE e.ack IS NOT NULL OR e.creditor = ?",
        (own,),
    )
    for n, digest, creditor, body, signature in rows:
        ack = None if body is None else _stored(Ack, body, signature)
        if ack is None or (ack.object.iss, ack.object.entry) != (creditor, digest):
            yield f"entry #{n}: its acknowledgement is missing, or is of another entry"


def _leases(connection: sqlite3.Connection, own: NodeId) -> Iterator[str]:
    rows = connection.execute(
        "SELECT b.lease, b.peer, b.role, b.price, b.stake, o.body, o.sig FROM obligations b LEFT JOIN objects o ON o.id = b.lease AND o.t = 'lease'"
    )
    for lease, peer, role, price, stake, body, signature in rows:
        signed = None if body is None else _stored(Lease, body, signature)
        parties = (own, peer) if role == "requester" else (peer, own)
        if signed is None or (signed.object.iss, signed.object.to, signed.object.price, signed.object.stake) != (*parties, price, stake):
            yield f"lease {lease.hex()[:16]}: it is missing, or was signed with other terms"


def _projection(connection: sqlite3.Connection, own: NodeId) -> Iterator[str]:
    """Make all rows again, from objects and events alone, in a temporary database that spills to the disk, and compare."""
    with closing(sqlite3.connect("", isolation_level=None)) as again:
        prepare(again)
        again.execute("BEGIN")
        rows = connection.execute("SELECT n, id, t, body, sig FROM objects WHERE t = 'entry' ORDER BY n")
        again.executemany("INSERT INTO objects (n, id, t, body, sig) VALUES (?, ?, ?, ?, ?)", rows)
        projection = Projection(again, own)
        events = connection.execute("SELECT seq, subject, kind, body FROM events WHERE stream = ? ORDER BY seq", (STREAM,))
        for seq, subject, kind, body in events:
            try:
                projection.apply(subject, kind, event_map(body))
            except (LedgerError, BadObject, KeyError, TypeError, sqlite3.Error) as broken:
                yield f"event #{seq} cannot be read: {broken}"
                return
        for table, (columns, _) in PROJECTION.items():
            order = "peer, ref" if table == "refs" else "1"
            query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}"
            names = list(columns)
            for ours, made in zip_longest(connection.execute(query), again.execute(query)):
                if ours != made:
                    yield f"{table}: {_difference(names, ours, made)}"
                    break  # those behind a missing row would all differ


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
