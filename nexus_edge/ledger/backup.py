"""Copies of a ledger, and going back to one. A ledger that was restored is behind its peers and knows it: see `Unsynchronised`."""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nexus_edge.errors import FileError, LedgerError
from nexus_edge.files import new_file
from nexus_edge.ledger import integrity
from nexus_edge.ledger.age import read_age
from nexus_edge.ledger.database import connect, explained, snapshot
from nexus_edge.ledger.errors import Damaged, DiskFull
from nexus_edge.ledger.projection import STREAM, Projection
from nexus_edge.ledger.schema import prepare
from nexus_edge.types import NodeId, UnixMs
from nexus_edge.wire.cbor import encode

PAGES: Final = 1024
"""Copied in one step: between steps others may write."""
BESIDE: Final = ("-wal", "-shm")


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    report: integrity.Report
    aside: Path | None
    """Where the former ledger was put."""
    peers: int
    """Whose books have to be compared before anything is issued to them."""


def copy_to(connection: sqlite3.Connection, path: Path) -> None:
    """Copy a whole ledger to a new file, which is complete and on the disk when it has its name."""
    if path.exists():
        raise FileError("the backup cannot be written", f"{path} exists already", "name another file")
    try:
        with new_file(path) as part, closing(sqlite3.connect(part, isolation_level=None)) as copy:
            connection.backup(copy, pages=PAGES)
            # One file, which needs no others beside it to be read.
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as failed:
        raise _unwritten(explained(failed), path) from failed
    except OSError as failed:
        raise _unwritten(failed, path) from failed


def restore(backup: Path, file: Path, own: NodeId, now: UnixMs) -> Restored:
    """Put a backup in the place of a ledger that nobody has open; the former one is kept beside it.

    The backup is checked first. Peers may hold entries of ours that it lacks: nothing is issued to a peer before its book was compared.
    Raises `Damaged` if the backup is not sound, `FileError` and `DiskFull`; then nothing has changed.
    """
    if not backup.is_file():
        raise FileError("the backup cannot be read", f"{backup} is no file", "name the file that `ledger backup` wrote")
    part = file.with_name(f".{file.name}.part")
    _remove(part)
    try:
        with (
            closing(sqlite3.connect(f"{backup.absolute().as_uri()}?mode=ro", uri=True)) as old,
            _explaining(backup),
            closing(connect(part)) as new,
        ):
            old.backup(new)
            if new.execute("PRAGMA user_version").fetchone()[0]:  # else it is no ledger, and must not become one
                prepare(new)
            with snapshot(new):
                report = integrity.check(new, own)
                strangers = new.execute("SELECT count(*) FROM entries WHERE ? NOT IN (debtor, creditor)", (own,)).fetchone()[0]
            if strangers:
                raise Damaged("this is another node's ledger", f"{strangers} of its entries are not ours", "name a backup of this node")
            if report.faults:
                raise Damaged("the backup is not sound", "; ".join(report.faults[:3]), "use an older one")
            peers = mark_restored(new, own, now)
            new.execute("PRAGMA journal_mode = DELETE")
        _sync(part)
        aside = _put_aside(file, now)
        part.replace(file)
        _sync(file.parent)
    except OSError as failed:
        raise _unwritten(failed, file) from failed
    finally:
        _remove(part)
    return Restored(report, aside, peers)


@contextlib.contextmanager
def _explaining(backup: Path) -> Iterator[None]:
    """What cannot be read is the backup, not the ledger."""
    try:
        yield
    except sqlite3.Error as failed:
        meant = explained(failed)
        if isinstance(meant, Damaged):
            raise Damaged("the backup is damaged", f"{backup}: {failed}", "use an older one; the ledger was not changed") from failed
        raise meant from failed


def mark_restored(connection: sqlite3.Connection, own: NodeId, now: UnixMs) -> int:
    """Write that this ledger is behind; returns how many peers it has to compare books with."""
    body = {"at": now, "age": read_age(connection, now)}
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO events (stream, subject, kind, body) VALUES (?, ?, 'restored', ?)", (STREAM, b"", encode(body))
    )  # fmt: skip
    Projection(connection, own).apply(b"", "restored", body)
    connection.execute("COMMIT")
    return int(connection.execute("SELECT count(*) FROM accounts").fetchone()[0])


def check_restored(file: Path) -> None:
    """Raise `Damaged` if a restore ended in the middle: a new ledger in the place of the former one would have forgotten all."""
    former = _former(file)
    if not file.exists() and former:
        raise Damaged(
            "a restore was interrupted", f"{former[-1]} was put aside and {file} is not there", "run `nexus-edge ledger restore` again"
        )


def _former(file: Path) -> list[Path]:
    """Ledgers that were put aside, the latest last."""
    return sorted(path for path in file.parent.glob(f"{file.name}.before-*") if not path.name.endswith(BESIDE))


def _put_aside(file: Path, now: UnixMs) -> Path | None:
    """The former ledger may be damaged, and may still hold what no backup has.

    What lies beside it goes too, also if a restore was interrupted before: a log of the one must not be read into the other.
    """
    former = [] if file.exists() else _former(file)
    aside = former[-1] if former else file.with_name(f"{file.name}.before-{now}")
    for end in ("", *BESIDE):
        if file.with_name(file.name + end).exists():
            file.with_name(file.name + end).replace(aside.with_name(aside.name + end))
    return aside if aside.exists() else None


def _remove(file: Path) -> None:
    for end in ("", *BESIDE):
        with contextlib.suppress(OSError):
            file.with_name(file.name + end).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritten(failed: Exception, path: Path) -> LedgerError | FileError:
    if isinstance(failed, LedgerError):
        return failed
    if isinstance(failed, OSError) and failed.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("the backup cannot be written", f"{path}: {failed.strerror}", "make space")
    return FileError("the backup cannot be written", f"{path}: {failed}")
