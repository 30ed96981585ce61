"""Whether a ledger is sound: the file, every object, every chain, and that the projections say what the objects say."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from nexus_edge.wire.cbor import encode
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.objects import OBJECTS, Entry, Lease
from nexus_edge.wire.signing import Signed, read_signed, read_stored

FAULTS: Final = 100
"""Faults that are listed: whoever has more has another problem."""


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


def check(connection: sqlite3.Connection, *, signatures: bool = False) -> Report:
    """Look at everything; signatures only if asked, which takes 0.1 ms each. Raises `sqlite3.DatabaseError` if the file cannot be read."""
    faults: list[str] = []
    for fault in _faults(connection, signatures=signatures):
        faults.append(fault)
        if len(faults) >= FAULTS:
            break
    objects, entries, events = (
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("objects", "entries", "events")
    )
    first, last = connection.execute("SELECT min(n), max(n) FROM entries").fetchone()
    return Report(objects, entries, events, first, last, tuple(faults))


def _faults(connection: sqlite3.Connection, *, signatures: bool) -> Iterator[str]:
    for (found,) in connection.execute("PRAGMA integrity_check(10)"):
        if found != "ok":
            yield f"file: {found}"
    kinds = {one.kind: one for one in OBJECTS}
    for digest, kind, body, signature in connection.execute("SELECT id, t, body, sig FROM objects"):
        try:
            signed: Signed[Any] = read_stored(kinds[kind], body, signature)
            if signatures:
                read_signed(encode({"b": body, "s": signature}), kinds[kind])
        except (BadObject, KeyError) as broken:
            yield f"object {digest.hex()[:16]}: {broken}"
            continue
        if signed.id != digest:
            yield f"object {digest.hex()[:16]}: its bytes have another digest"
    yield from _entries(connection)
    yield from _obligations(connection)


def _entries(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(
        "SELECT e.n, e.id, e.debtor, e.creditor, e.chain, e.seq, e.kind, e.amt, e.total, e.ref, o.body, o.sig FROM entries e "
        "LEFT JOIN objects o ON o.id = e.id ORDER BY e.debtor, e.creditor, e.chain, e.seq"
    )
    before: Signed[Entry] | None = None
    for n, digest, debtor, creditor, chain, seq, kind, amt, total, ref, body, signature in rows:
        if body is None:
            yield f"entry #{n}: its object is missing"
            continue
        try:
            signed = read_stored(Entry, body, signature)
        except BadObject as broken:
            yield f"entry #{n}: {broken.why}"
            continue
        what = signed.object
        if (what.iss, what.to, what.chain, what.seq, what.what, what.amt, what.total, what.ref) != (
            debtor, creditor, chain, seq, kind, amt, total, ref,
        ) or signed.id != digest:  # fmt: skip
            yield f"entry #{n}: the book says something else than what was signed"
        follows = before is not None and before.object.chain == what.chain and before.object.seq + 1 == what.seq
        if before is not None and follows and (what.prev != before.id or what.total != before.object.total + what.amt):
            yield f"entry #{n} does not follow the one before it"
        before = signed


def _obligations(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(
        "SELECT b.lease, b.peer, b.role, b.price, b.stake, o.body, o.sig FROM obligations b LEFT JOIN objects o ON o.id = b.lease AND o.t = 'lease'"
    )
    for lease, peer, role, price, stake, body, signature in rows:
        if body is None:
            yield f"lease {lease.hex()[:16]}: its object is missing"
            continue
        try:
            order = read_stored(Lease, body, signature).object
        except BadObject as broken:
            yield f"lease {lease.hex()[:16]}: {broken.why}"
            continue
        if (order.price, order.stake, order.to if role == "requester" else order.iss) != (price, stake, peer):
            yield f"lease {lease.hex()[:16]}: the book says something else than what was signed"
