"""One writer thread over SQLite: every transition is a transaction over all its rows, and is on the disk when its caller goes on."""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from nexus_edge.errors import LedgerError
from nexus_edge.ledger.errors import Damaged, DiskFull
from nexus_edge.ledger.schema import prepare

T = TypeVar("T")

BATCH_S: Final = 0.005
"""How long a transition waits at most for others to share its flush."""
BATCH: Final = 64
_NO_ROOM: Final = ("SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_SHMSIZE")
"""How else than by SQLITE_FULL a disk without room shows: a quota, and the shared memory of the write-ahead log."""
BUSY_S: Final = 10.0
"""A backup or another program reading may hold the file for a moment."""


class CommitHook(Protocol):
    """Called around every flush, for tests that end the process there."""

    def __call__(self, name: str, point: str) -> None:
        """`point` is `before-flush`, `after-flush` (both on the writer's thread) or `before-send` (on the loop)."""


@dataclass
class _Write:
    name: str
    work: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[Any]"


_Result = tuple[_Write, Any, BaseException | None]


class Writer:
    """Writes, and gives read connections."""

    def __init__(self, path: Path, hook: CommitHook | None = None) -> None:
        self.path = path
        self._hook = hook
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._connection = connect(path)
        try:
            with explaining():
                prepare(self._connection)
            self._reading = connect(path, read_only=True)
        except BaseException:
            self._connection.close()
            raise
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    async def write(self, name: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction of its own. When this returns, it is on the disk; when it raises, nothing is.

        `work` may run a second time, if the first was taken back with others: it has no effects but on the connection. Raises `DiskFull`, `LedgerError`, and whatever `work` raises.
        """
        if not self._thread.is_alive():
            raise LedgerError("the ledger is closed", f"{name!r} comes too late")
        loop = asyncio.get_running_loop()
        write = _Write(name, work, loop, loop.create_future())
        self._queue.put(write)
        # The transaction is not undone because nobody waits for it: cancellation must not make the caller believe that.
        try:
            made: T = await asyncio.shield(write.done)
        except asyncio.CancelledError:
            write.done.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else asks for it
            raise
        if self._hook is not None:
            self._hook(name, "before-send")
        return made

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query on a connection that sees only what is committed."""

        def run() -> T:
            with explaining(), snapshot(self._reading) as connection:
                return query(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    async def inspect(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Likewise, for what takes long: on a connection of its own, so that nobody waits for it."""

        def run() -> T:
            with contextlib.closing(connect(self.path, read_only=True)) as inspecting, explaining(), snapshot(inspecting) as connection:
                return query(connection)

        return await asyncio.to_thread(run)

    def close(self) -> None:
        """Finish what is queued, and close."""
        self._queue.put(None)
        self._thread.join()
        self._readers.shutdown()
        self._reading.close()
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA optimize")
        self._connection.close()

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch, is_last = self._gather(first)
            results = self._flush(batch)
            if results is None:
                # Something took back the whole batch, a full disk mostly: each alone, so that no transition fails for another's sake.
                results = [result for write in batch for result in self._flush([write], alone=True) or ()]
            for write, made, error in results:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    write.loop.call_soon_threadsafe(_finish, write.done, made, error)
            if is_last:
                return

    def _gather(self, first: _Write) -> tuple[list[_Write], bool]:
        """What shares a flush: whatever is there already, and for a busy queue what comes within some milliseconds."""
        batch = [first]
        until = time.monotonic() + BATCH_S
        with contextlib.suppress(queue.Empty):
            while len(batch) < BATCH:
                left = until - time.monotonic()
                write = self._queue.get(timeout=left) if len(batch) > 1 and left > 0 else self._queue.get_nowait()
                if write is None:
                    return batch, True
                batch.append(write)
        return batch, False

    def _flush(self, batch: list[_Write], *, alone: bool = False) -> list[_Result] | None:
        """Write a batch; None if nothing of it is written and it has to be tried in parts."""
        results: list[_Result] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [self._step(write) for write in batch]
            self._announce(results, "before-flush")
            self._connection.execute("COMMIT")
        except BaseException as failed:  # noqa: BLE001 - handed to the callers: this thread must go on
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            error = explained(failed) if isinstance(failed, sqlite3.Error) else failed
            return [(write, None, error) for write in batch] if alone else None
        self._announce(results, "after-flush")
        return results

    def _step(self, write: _Write) -> _Result:
        """One transition behind a savepoint: its failure takes back its own rows, and no others."""
        self._connection.execute("SAVEPOINT transition")
        try:
            made = write.work(self._connection)
        except BaseException as error:
            if not self._connection.in_transaction:
                raise  # SQLite took back everything
            self._connection.execute("ROLLBACK TO transition")
            self._connection.execute("RELEASE transition")
            return write, None, explained(error) if isinstance(error, sqlite3.Error) else error
        self._connection.execute("RELEASE transition")
        return write, made, None

    def _announce(self, results: list[_Result], point: str) -> None:
        if self._hook is not None:
            for write, _, error in results:
                if error is None:
                    self._hook(write.name, point)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection whose transactions are explicit. Raises `Damaged` and `DiskFull`."""
    try:
        if not read_only:
            path.touch(mode=0o600)
        name = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
        connection = sqlite3.connect(name, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    except (OSError, sqlite3.Error) as failed:
        raise LedgerError("the ledger cannot be opened", f"{path}: {failed}", "check the folder's owner and free space") from failed
    try:
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except sqlite3.DatabaseError as failed:
        connection.close()
        raise explained(failed) from failed
    return connection


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A read transaction: all queries in it see one state."""
    connection.execute("BEGIN")
    try:
        yield connection
    finally:
        connection.execute("ROLLBACK")


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Failures of SQLite become the ledger's errors."""
    try:
        yield
    except sqlite3.Error as failed:
        raise explained(failed) from failed


def explained(failed: BaseException) -> LedgerError:
    """What a failure of SQLite means."""
    code = getattr(failed, "sqlite_errorname", "")
    if code == "SQLITE_FULL" or code in _NO_ROOM:
        return DiskFull("the ledger cannot write", str(failed), "make space: it goes on by itself")
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or code == "SQLITE_IOERR_SHORT_READ":
        return Damaged("the ledger is damaged", str(failed), "stop the agent, then `nexus-edge ledger restore` a backup")
    return LedgerError("the ledger cannot be used", f"{code or type(failed).__name__}: {failed}")


def _finish(done: "asyncio.Future[Any]", made: Any, error: BaseException | None) -> None:
    if done.cancelled():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(made)
