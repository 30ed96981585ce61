"""Where a check left off: a seal names the last object, event and entry that were found good, and holds the rows that later events can change.

So a start replays what happened since on those rows, and takes as long as that and as what is open, however old the ledger is. A seal is no
authority: where what follows from it does not fit, the whole ledger is checked, and that decides.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from nexus_edge.ledger.projection import STREAM
from nexus_edge.ledger.schema import PROJECTION

OPEN: Final = "state IN ('open', 'owed', 'signed')"
"""Obligations that anything can still happen to."""
UNHELD: Final = "held <> 1 AND abandoned = 0"
"""Entries of ours that their creditor is not known to have."""
_KEPT: Final = {
    "accounts": "",
    "obligations": f"WHERE {OPEN}",
    # The last one numbers those that follow.
    "entries": f"WHERE {UNHELD} UNION SELECT * FROM entries WHERE n = (SELECT max(n) FROM entries NOT INDEXED)",
    "refs": "",
    "marks": "",
}
_REPAIRS: Final = ("restored", "rebased")
"""Events that change rows of any age: books were compared and differed."""


@dataclass(frozen=True)
class Seal:
    """The numbers of the last ones that were checked."""

    objects: int
    events: int
    entries: int


def read_seal(connection: sqlite3.Connection) -> Seal | None:
    """What the last check found good; None if there is nothing to go on from: a new ledger, or one that was repaired since."""
    row = connection.execute("SELECT objects, events, entries FROM seals").fetchone()
    if row is None or not row[1]:
        return None
    repaired = connection.execute(
        f"SELECT 1 FROM events NOT INDEXED WHERE seq > ? AND stream = ? AND kind IN ({', '.join('?' * len(_REPAIRS))})",
        (row[1], STREAM, *_REPAIRS),
    )
    return None if repaired.fetchone() else Seal(*row)


def write_seal(connection: sqlite3.Connection) -> None:
    """Over all that is there now, which was just checked."""
    connection.execute("DELETE FROM seals")
    connection.execute(
        "INSERT INTO seals (objects, events, entries) SELECT (SELECT coalesce(max(n), 0) FROM objects NOT INDEXED), "
        "(SELECT coalesce(max(seq), 0) FROM events NOT INDEXED), (SELECT coalesce(max(n), 0) FROM entries NOT INDEXED)"
    )
    for table, (columns, _) in PROJECTION.items():
        names = ", ".join(columns)
        connection.execute(f"DELETE FROM sealed_{table}")
        connection.execute(f"INSERT INTO sealed_{table} ({names}) SELECT {names} FROM {table} {_KEPT[table].replace('*', names)}")


def unseal(connection: sqlite3.Connection, again: sqlite3.Connection) -> None:
    """Put the sealed rows into an empty projection."""
    for table, (columns, _) in PROJECTION.items():
        names = ", ".join(columns)
        rows = connection.execute(f"SELECT {names} FROM sealed_{table}")
        again.executemany(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})", rows)


def changeable(connection: sqlite3.Connection, again: sqlite3.Connection, seal: Seal) -> Iterator[tuple[str, list[str], Any, Any]]:
    """Rows that may have changed since a seal, as they are and as they were made again: those of either side, by their keys."""
    for table, key, which in (
        ("obligations", "lease", f"WHERE {OPEN}"),
        ("entries", "n", f"NOT INDEXED WHERE n > {seal.entries} UNION SELECT n FROM entries WHERE {UNHELD}"),
    ):
        names = list(PROJECTION[table][0])
        keys = {row[0] for row in again.execute(f"SELECT {key} FROM {table}")}
        keys.update(row[0] for row in connection.execute(f"SELECT {key} FROM {table} {which}"))
        query = f"SELECT {', '.join(names)} FROM {table} WHERE {key} = ?"
        for one in sorted(keys):
            yield table, names, connection.execute(query, (one,)).fetchone(), again.execute(query, (one,)).fetchone()
