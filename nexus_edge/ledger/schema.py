"""Tables of the ledger. Objects and events are the truth; entries, obligations and peers are projections that `integrity` compares with it."""

import sqlite3
from typing import Final

from sqlite_utils import Database

from nexus_edge.ledger.errors import Damaged

VERSION: Final = 1
APPLICATION: Final = 0x4E584544  # "NXED", in the header of the file

TABLES: Final[dict[str, tuple[dict[str, type], str | tuple[str, ...]]]] = {
    "objects": ({"id": bytes, "t": str, "body": bytes, "sig": bytes}, "id"),
    "events": ({"seq": int, "stream": str, "subject": bytes, "kind": str, "body": bytes}, "seq"),
    "entries": (
        {
            "n": int, "id": bytes, "debtor": bytes, "creditor": bytes, "chain": bytes, "seq": int, "kind": str, "amt": int, "total": int,
            "ref": bytes, "at": int, "ack": bytes, "abandoned": int,
        },
        "n",
    ),
    "obligations": (
        {
            "lease": bytes, "peer": bytes, "role": str, "price": int, "stake": int, "state": str, "ref": bytes, "owed": int, "at": int,
        },
        "lease",
    ),
    "peers": (
        {
            "peer": bytes, "prefix": str, "private": int, "granted": int, "verified": int, "verified_day": int, "unsynchronised": int,
        },
        "peer",
    ),
    "adjustments": ({"n": int, "peer": bytes, "kind": str, "amt": int, "at": int, "ref": bytes}, "n"),
    "audits": ({"n": int, "at": int, "who": str, "what": str, "detail": str}, "n"),
    "settings": ({"key": str, "value": bytes}, "key"),
}  # fmt: skip

OPTIONAL: Final = {"ack", "ref"}


def prepare(connection: sqlite3.Connection) -> None:
    """Make or migrate the tables, in one transaction. Raises `Damaged` for a file that is something else, or of a later version."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if version > VERSION:
        raise Damaged("the ledger is of a later version", f"it has version {version}, this program knows {VERSION}", "update nexus-edge")
    if version == VERSION:
        if application != APPLICATION:
            raise Damaged("this is no ledger", "the file belongs to another program", "name another folder")
        return
    database = Database(connection, recursive_triggers=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for name, (columns, key) in TABLES.items():
            required = set(columns) - OPTIONAL
            database.table(name).create(columns, pk=key, not_null=required, strict=True)
        database.table("entries").create_index(["id"], unique=True)
        database.table("entries").create_index(["debtor", "creditor", "chain", "seq"], unique=True)
        database.table("entries").create_index(["ref"])
        database.table("events").create_index(["stream", "subject"])
        database.table("obligations").create_index(["peer", "role"])
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
