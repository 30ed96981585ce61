"""Reading a ledger that another process may have open: its transitions are seen as they are committed, and none is held up."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from nexus_edge.clock import now_ms
from nexus_edge.errors import LedgerError
from nexus_edge.ledger import integrity
from nexus_edge.ledger.age import read_age
from nexus_edge.ledger.backup import copy_to
from nexus_edge.ledger.credit import CreditPolicy
from nexus_edge.ledger.database import connect, explaining, snapshot
from nexus_edge.ledger.errors import Damaged
from nexus_edge.ledger.ledger import FILE
from nexus_edge.ledger.reading import Reader
from nexus_edge.ledger.schema import APPLICATION, VERSION
from nexus_edge.types import NodeId

T = TypeVar("T")


def look(folder: Path, own: NodeId, query: Callable[[Reader], T], policy: CreditPolicy | None = None) -> T:
    """Ask the ledger in a folder. Raises `LedgerError` if there is none, `Damaged` if it cannot be read."""
    return _look(
        folder, lambda connection: query(Reader(connection, own, policy or CreditPolicy(), now_ms(), read_age(connection, now_ms())))
    )


def verify(folder: Path, own: NodeId) -> integrity.Report:
    """Check everything that can be checked. A file that cannot be read is a fault too."""
    try:
        return _look(folder, lambda connection: integrity.check(connection, own))
    except Damaged as damaged:
        return integrity.Report(0, 0, 0, None, None, (f"{damaged.what}: {damaged.why}",), 0)


def backup(folder: Path, path: Path) -> None:
    """Copy it to a new file. Raises `FileError` if there is one, `DiskFull`, `LedgerError`."""
    _look(folder, lambda connection: copy_to(connection, path))


def _look(folder: Path, query: Callable[[sqlite3.Connection], T]) -> T:
    file = folder / FILE
    if not file.exists():
        raise LedgerError("there is no ledger", f"{file} does not exist", "an agent makes one when it starts")
    with closing(connect(file, read_only=True)) as connection, explaining():
        found = tuple(connection.execute(f"PRAGMA {one}").fetchone()[0] for one in ("application_id", "user_version"))
        if found != (APPLICATION, VERSION):
            raise Damaged("this is no ledger of this version", f"{file} has version {found[1]}", "start the agent once, which migrates it")
        with snapshot(connection):
            return query(connection)
