"""What happened to money, line by line, as screens, `ledger list` and exports show it."""

import sqlite3
from dataclasses import dataclass
from typing import Any, Final, Literal

from nexus_edge.ledger.projection import STREAM, event_map
from nexus_edge.types import Digest, JobId, NodeId, UnixMs
from nexus_edge.wire.objects import Lease
from nexus_edge.wire.signing import read_stored

Signatures = Literal["both", "ours"]

SHOWN: Final = ("reserved", "released", "issued", "rebased", "declined", "admitted", "nothing-owed", "taken", "written-off")
"""Kinds of events that are lines. The others only say that what a line tells has become certain."""

_PLAIN: Final = {
    "reserved": "held", "released": "released", "admitted": "offered", "nothing-owed": "released", "rebased": "repaired",
    "declined": "repaired", "written-off": "repaired",
}  # fmt: skip


@dataclass(frozen=True)
class Movement:
    """One line."""

    n: int
    """Its number: it rises, with gaps."""
    at: UnixMs
    kind: str
    """offered, held, earned, paid, released, cancelled, prepaid, refunded or repaired."""
    peer: NodeId
    job: JobId | None
    """What it is for; None where that is no job."""
    amount: int
    """What it changes, or would change, to our favour."""
    balance: int | None
    """What the peer owed us afterwards, less what we owed it; None where the line changed nothing of that."""
    signatures: Signatures
    """Ours waits for the other."""
    entry: Digest | None


def movements(
    connection: sqlite3.Connection, limit: int, before: int | None, after: int | None, peer: NodeId | None, *, oldest_first: bool
) -> list[Movement]:
    """At most so many lines between two numbers."""
    rows = connection.execute(
        "SELECT seq, subject, kind, body FROM events WHERE stream = ? AND (? IS NULL OR seq < ?) AND (? IS NULL OR seq > ?) "
        f"AND (? IS NULL OR subject = ?) AND kind IN ({', '.join('?' * len(SHOWN))}) ORDER BY seq {'ASC' if oldest_first else 'DESC'}",
        (STREAM, before, before, after, after, peer, peer, *SHOWN),
    )
    lines: list[Movement] = []
    for seq, subject, kind, body in rows:
        line = _line(connection, seq, NodeId(subject), kind, dict(event_map(body)))
        if line is not None:
            lines.append(line)
        if len(lines) == limit:
            break
    return lines


def _line(connection: sqlite3.Connection, seq: int, peer: NodeId, kind: str, body: dict[str, Any]) -> Movement | None:
    if kind in ("issued", "taken"):
        return _entry(connection, seq, peer, kind, body)
    if kind == "rebased" and not body["adopted"]:
        return None  # only what was posted is posted again
    amount = body.get("amount", 0)
    lease = body.get("lease")
    if lease is not None:
        (price,) = connection.execute("SELECT price FROM obligations WHERE lease = ?", (lease,)).fetchone()
        amount = price if kind in ("admitted", "nothing-owed") else -price
    return Movement(seq, UnixMs(body["at"]), _PLAIN[kind], peer, _job(connection, lease), amount, None, "ours", None)


def _entry(connection: sqlite3.Connection, seq: int, peer: NodeId, kind: str, body: dict[str, Any]) -> Movement | None:
    digest = Digest(body["entry"])
    what, amount, ref, ack, abandoned = connection.execute(
        "SELECT kind, amt, ref, ack, abandoned FROM entries WHERE id = ?", (digest,)
    ).fetchone()
    if what == "opening" or abandoned:
        return None  # nothing is paid by the one, and by the other not any more: it was signed again
    row = connection.execute("SELECT lease FROM obligations WHERE peer = ? AND ref = ?", (peer, ref)).fetchone()
    names = {"refund": "refunded", "prepaid": "prepaid", "fee": "cancelled"}
    return Movement(
        seq,
        UnixMs(body["at"]),
        names.get(what, "paid" if kind == "issued" else "earned"),
        peer,
        _job(connection, None if row is None else row[0]),
        -amount if kind == "issued" else amount,
        body["balance"],
        "ours" if ack is None else "both",
        digest,
    )


def _job(connection: sqlite3.Connection, lease: bytes | None) -> JobId | None:
    row = None if lease is None else connection.execute("SELECT body, sig FROM objects WHERE id = ?", (lease,)).fetchone()
    return None if row is None else read_stored(Lease, row[0], row[1]).object.job
