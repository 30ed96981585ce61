"""How old a node is: a clock that nobody sets, which goes on only while the node is up.

What is deleted, forgiven or forgotten after a time goes by it. A wall clock that is set forward, by hand or because a battery is empty,
ends nothing; neither do weeks in which the machine was off or asleep, when nobody could have fetched or paid anything.

It is milliseconds, begins with what the wall clock says when the ledger is made, and is comparable with nothing but itself.
"""

import sqlite3
from typing import Final

from nexus_edge.types import UnixMs

_SEEN: Final = (
    "SELECT max(coalesce((SELECT max(at) FROM entries), 0), coalesce((SELECT max(at) FROM obligations), 0), "
    "coalesce((SELECT max(max(opened_at, quarrelled_at)) FROM accounts), 0), coalesce((SELECT max(value) FROM marks WHERE key = 'restored'), 0))"
)


def read_age(connection: sqlite3.Connection, now: UnixMs) -> UnixMs:
    """The age that was written last. One that never was begins now, but not before anything that the ledger remembers."""
    row = connection.execute("SELECT ms FROM age").fetchone()
    return UnixMs(row[0] if row is not None else max(now, connection.execute(_SEEN).fetchone()[0]))


def write_age(connection: sqlite3.Connection, age: UnixMs) -> None:
    """For the next start. What is not written is not counted: things are kept longer then, never shorter."""
    connection.execute("INSERT OR REPLACE INTO age (n, ms) VALUES (1, ?)", (age,))
