"""The ledger of one node: opened by one process, which draws its own chains of entries."""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import integrity
from nexus_edge.ledger.credit import CreditPolicy
from nexus_edge.ledger.database import CommitHook, Writer
from nexus_edge.ledger.errors import Damaged
from nexus_edge.ledger.reading import Reader
from nexus_edge.ledger.transactions import Transaction
from nexus_edge.types import NodeId, UnixMs

T = TypeVar("T")

FILE = "ledger.sqlite"


class Ledger:
    """Transitions in, answers out. Use `Ledger.open`, and close it."""

    def __init__(
        self, key: NodeKey, policy: CreditPolicy, writer: Writer, lock: int, clock: Callable[[], UnixMs], *, restoring: bool
    ) -> None:
        self.policy = policy
        self._key = key
        self._writer = writer
        self._lock = lock
        self._clock = clock
        self._restoring = restoring
        self._chains: dict[NodeId, bytes] = {}

    @classmethod
    async def open(
        cls,
        folder: Path,
        key: NodeKey,
        policy: CreditPolicy | None = None,
        *,
        hook: CommitHook | None = None,
        clock: Callable[[], UnixMs] | None = None,
    ) -> "Ledger":
        """Open the ledger in a folder, or make one. Raises `Damaged` if it is not sound, `LedgerError` if another process has it."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _lock(folder)
        try:
            writer = Writer(folder / FILE, hook)
            try:
                report = await writer.read(lambda connection: integrity.check(connection))
                if report.faults:
                    raise Damaged(
                        "the ledger contradicts itself",
                        "; ".join(report.faults[:3]),
                        "`nexus-edge ledger verify` says all; restore a backup",
                    )
                restoring = await writer.read(_has_unsynchronised)
            except BaseException:
                writer.close()
                raise
        except BaseException:
            os.close(lock)
            raise
        return cls(key, policy or CreditPolicy(), writer, lock, clock or now, restoring=restoring)

    @property
    def path(self) -> Path:
        """The file."""
        return self._writer.path

    async def transact(self, name: str, work: Callable[[Transaction], T]) -> T:
        """Run one transition. When this returns it is on the disk; when it raises nothing of it is. The one function that commits."""

        def run(connection: sqlite3.Connection) -> T:
            return work(Transaction(connection, self._key, self.policy, self._clock(), self._chains, restoring=self._restoring))

        return await self._writer.write(name, run)

    async def read(self, query: Callable[[Reader], T]) -> T:
        """Ask it something."""
        return await self._writer.read(lambda connection: query(Reader(connection, self._key.id, self.policy, self._clock())))

    async def verify(self) -> integrity.Report:
        """Check everything that can be checked."""
        return await self._writer.read(lambda connection: integrity.check(connection, signatures=True))

    async def close(self) -> None:
        """Finish what is queued."""
        await asyncio.to_thread(self._writer.close)
        os.close(self._lock)


def now() -> UnixMs:
    """The wall clock of this machine."""
    return UnixMs(time.time_ns() // 1_000_000)


def _has_unsynchronised(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM peers WHERE unsynchronised = 1").fetchone() is not None


def _lock(folder: Path) -> int:
    """One process has a ledger: two would draw on the same credit."""
    descriptor = os.open(folder / "ledger.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    os.close(descriptor)
    raise LedgerError("the ledger is in use", f"another process has {folder}", "is an agent running? `nexus-edge status` tells")
