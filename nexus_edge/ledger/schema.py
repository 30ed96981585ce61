"""Tables of the ledger. Objects and events are the truth; the projection follows from them, and `integrity` makes it again and compares.

`live` and `memories` say where state machines go on without reading all that ever happened: what they hold follows from events too, but by
the rules of those machines.
"""

import sqlite3
from collections.abc import Callable
from typing import Final

from sqlite_utils import Database

from nexus_edge.ledger.errors import Damaged

APPLICATION: Final = 0x4E584544  # "NXED", in the header of the file

Columns = dict[str, type]

TRUTH: Final[dict[str, tuple[Columns, str]]] = {
    "objects": ({"n": int, "id": bytes, "t": str, "body": bytes, "sig": bytes}, "n"),
    "events": ({"seq": int, "stream": str, "subject": bytes, "kind": str, "body": bytes}, "seq"),
    "seals": ({"n": int, "digest": bytes}, "n"),
    "audits": ({"n": int, "at": int, "who": str, "what": str, "detail": str}, "n"),
}

PROJECTION: Final[dict[str, tuple[Columns, str]]] = {
    "entries": (
        {
            "n": int, "id": bytes, "debtor": bytes, "creditor": bytes, "chain": bytes, "seq": int, "prev": bytes, "kind": str, "amt": int,
            "total": int, "ref": bytes, "at": int, "held": int, "ack": bytes, "abandoned": int,
        },
        "n",
    ),
    "obligations": (
        {
            "lease": bytes, "peer": bytes, "role": str, "price": int, "stake": int, "state": str, "ref": bytes, "owed": int, "at": int,
        },
        "lease",
    ),
    "accounts": (
        {
            "peer": bytes, "prefix": str, "private": int, "out": int, "inn": int, "head": bytes, "last": bytes, "reserved_out": int,
            "reserved_in": int, "locked": int, "granted": int, "verified": int, "verified_day": int, "written_off": int, "declined": int,
            "openings": int, "opened_at": int, "quarrels": int, "quarrelled_at": int, "trusted_until": int, "unsynchronised": int,
        },
        "peer",
    ),
    "refs": ({"peer": bytes, "ref": bytes, "state": str, "amt": int}, "ref"),
    "marks": ({"key": str, "value": int}, "key"),
}  # fmt: skip

CERTIFICATES: Final[Columns] = {"node": bytes, "key": bytes, "seq": int, "exp": int, "body": bytes, "sig": bytes}
"""Who belongs to which fleet: the newest certificate of each, in the place of the one before. Truth without a history, which nobody needs."""

AIDS: Final[dict[str, tuple[Columns, str | tuple[str, ...]]]] = {
    "age": ({"n": int, "ms": int}, "n"),
    "live": ({"stream": str, "subject": bytes, "since": int}, ("stream", "subject")),
    "memories": ({"stream": str, "subject": bytes, "body": bytes}, ("stream", "subject")),
}

SEALED: Final[dict[str, tuple[Columns, str]]] = {f"sealed_{name}": table for name, table in PROJECTION.items()}
"""The projection as it was when it was last checked, as far as what happens next can change it."""

OPTIONAL: Final = {"ack", "head", "last", "since"}
"""Columns that may be empty; and an obligation's `ref`, until something is owed."""


def _first(database: Database) -> None:
    """Version 1."""
    for name, (columns, key) in {**TRUTH, **PROJECTION}.items():
        primary: str | tuple[str, ...] = ("peer", "ref") if name == "refs" else key
        optional = OPTIONAL | ({"ref"} if name == "obligations" else set())
        database.table(name).create(columns, pk=primary, not_null=set(columns) - optional, strict=True)
    for table, index, unique in (
        ("objects", ["id"], True),
        ("events", ["stream", "subject"], False),
        ("entries", ["id"], True),
        ("entries", ["debtor", "creditor", "chain", "seq"], True),
        ("entries", ["ref", "debtor", "creditor"], False),
        ("entries", ["at"], False),
        ("obligations", ["peer", "role", "ref"], False),
    ):
        database.table(table).create_index(index, unique=unique)
    # What is open is little, and is asked for at every step; what was ever paid is much.
    database.execute("CREATE INDEX open_obligations ON obligations (role, state) WHERE state IN ('open', 'owed', 'signed')")
    database.execute("CREATE INDEX unheld_entries ON entries (debtor, creditor, n) WHERE held <> 1 AND abandoned = 0")


def _second(database: Database) -> None:
    """Version 2: fleets."""
    database.table("certificates").create(CERTIFICATES, pk=("node", "key"), not_null=set(CERTIFICATES), strict=True)


def _third(database: Database) -> None:
    """Version 3: the node's age, which subjects of events are not left to the ledger yet (first all of them), and seals that hold rows."""
    for name, (columns, key) in AIDS.items():
        database.table(name).create(columns, pk=key, not_null=set(columns) - OPTIONAL, strict=True)
    for name, (columns, _) in SEALED.items():
        database.table(name).create(columns, strict=True)
    database.table("seals").drop()  # of another form, and made again by the check of the next start
    database.table("seals").create({"objects": int, "events": int, "entries": int}, not_null={"objects", "events", "entries"}, strict=True)
    database.execute("INSERT INTO live (stream, subject) SELECT DISTINCT stream, subject FROM events WHERE stream != 'money'")


MIGRATIONS: Final[tuple[Callable[[Database], None], ...]] = (_first, _second, _third)
"""Each makes one version of the next lower one. A version that was published is never changed."""

VERSION: Final = len(MIGRATIONS)


def prepare(connection: sqlite3.Connection) -> None:
    """Make or migrate the tables, in one transaction. Raises `Damaged` for a file that is something else, or of a later version."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION and (version or tables):
        raise Damaged("this is no ledger", "the file belongs to another program", "name another folder")
    if version > VERSION:
        raise Damaged("the ledger is of a later version", f"it has version {version}, this program knows {VERSION}", "update nexus-edge")
    if version == VERSION:
        return
    database = Database(connection, recursive_triggers=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migrate in MIGRATIONS[version:]:
            migrate(database)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
