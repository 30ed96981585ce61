"""The ledger of one node: opened by one process, which draws its own chains of entries."""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from nexus_edge.clock import SUSPENDED_S, asleep_s, now_ms, set_by_s, up_ms
from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import integrity
from nexus_edge.ledger.age import read_age
from nexus_edge.ledger.backup import check_restored, copy_to
from nexus_edge.ledger.credit import CreditPolicy
from nexus_edge.ledger.database import CommitHook, Writer
from nexus_edge.ledger.errors import Damaged, DiskFull, InUse
from nexus_edge.ledger.reading import Reader
from nexus_edge.ledger.sealing import read_seal, write_seal
from nexus_edge.ledger.transactions import Transaction
from nexus_edge.types import Digest, NodeId, UnixMs
from nexus_edge.wire.signing import Signed

T = TypeVar("T")

FILE: Final = "ledger.sqlite"
AT_HAND: Final = 512
"""Objects kept in memory: of all jobs that are open at once, some 2 KiB each."""


class Ledger:
    """Transitions in, answers out. Use `Ledger.open`, and close it."""

    def __init__(
        self,
        key: NodeKey,
        policy: CreditPolicy,
        writer: Writer,
        lock: int,
        age: UnixMs,
        clock: Callable[[], UnixMs],
        ticks: Callable[[], int],
    ) -> None:
        self.policy = policy
        self._key = key
        self._writer = writer
        self._lock = lock
        self._clock = clock
        self._ticks = ticks
        self._born = age - ticks()
        self._chains: dict[NodeId, bytes] = {}
        self._asleep, self._set_by = asleep_s(), set_by_s()
        self._at_hand: OrderedDict[Digest, Signed[Any]] = OrderedDict()

    @classmethod
    async def open(
        cls,
        folder: Path,
        key: NodeKey,
        policy: CreditPolicy | None = None,
        *,
        hook: CommitHook | None = None,
        clock: Callable[[], UnixMs] = now_ms,
        ticks: Callable[[], int] = up_ms,
    ) -> "Ledger":
        """Open the ledger in a folder, or make one. `clock` is what time it is, `ticks` by what the node grows older, in milliseconds.

        Raises `Damaged` if it is not sound, `DiskFull`, and `InUse` if another process has it. What happened since the last start is
        checked, which takes some 0.1 ms for each event; all of it where there is nothing to go on from: see `nexus_edge.ledger.sealing`.
        """
        lock = await asyncio.to_thread(take_lock, folder)
        try:
            await asyncio.to_thread(check_restored, folder / FILE)
            writer = await asyncio.to_thread(Writer, folder / FILE, hook)
            try:
                report = await writer.inspect(lambda connection: integrity.check(connection, key.id, read_seal(connection)))
                if report.faults:
                    raise Damaged(
                        "the ledger contradicts itself",
                        "; ".join(report.faults[:3]),
                        "nothing was changed; `nexus-edge ledger verify` says all, `nexus-edge ledger restore` goes back to a backup",
                    )
                with contextlib.suppress(DiskFull):  # the next start takes longer, that is all
                    await writer.write("seal", write_seal)
                age = await writer.read(lambda connection: read_age(connection, clock()))
            except BaseException:
                await asyncio.to_thread(writer.close)
                raise
        except BaseException:
            os.close(lock)
            raise
        return cls(key, policy or CreditPolicy(), writer, lock, age, clock, ticks)

    def age(self) -> UnixMs:
        """How old the node is: see `nexus_edge.ledger.age`."""
        return UnixMs(self._born + self._ticks())

    @property
    def path(self) -> Path:
        """The file."""
        return self._writer.path

    async def transact(self, name: str, work: Callable[[Transaction], T]) -> T:
        """Run one transition. When this returns it is on the disk; when it raises nothing of it is. The one function that commits.

        `work` runs on the writer's thread, and again if it was taken back for another transition's sake: it has no other effects.
        """

        def run(connection: sqlite3.Connection) -> tuple[T, list[Signed[Any]]]:
            self._end_chains_after_suspend()
            transaction = Transaction(connection, self._key, self.policy, self._clock(), self.age(), self._chains)
            return work(transaction), transaction.kept

        made, kept = await self._writer.write(name, run)
        self._remember(kept)
        return made

    async def read(self, query: Callable[[Reader], T]) -> T:
        """Ask it something."""
        return await self._writer.read(lambda connection: query(self._reader(connection)))

    def _reader(self, connection: sqlite3.Connection) -> Reader:
        return Reader(connection, self._key.id, self.policy, self._clock(), self.age())

    async def object(self, digest: Digest) -> Signed[Any]:
        """A kept object, from memory if it was kept or asked for lately: what is signed never changes. Raises `LedgerError`."""
        found = self._at_hand.get(digest)
        if found is None:
            found = await self.read(lambda reader: reader.object(digest))
        self._remember((found,))
        return found

    def _remember(self, objects: Iterable[Signed[Any]]) -> None:
        for one in objects:
            self._at_hand.setdefault(one.id, one)
            self._at_hand.move_to_end(one.id)
        while len(self._at_hand) > AT_HAND:
            self._at_hand.popitem(last=False)

    async def browse(self, query: Callable[[Reader], T]) -> T:
        """Ask it something that takes long, an export: nobody waits for it."""
        return await self._writer.inspect(lambda connection: query(self._reader(connection)))

    async def verify(self) -> integrity.Report:
        """Check everything that can be checked, meanwhile it goes on."""
        return await self._writer.inspect(lambda connection: integrity.check(connection, self._key.id))

    async def backup(self, path: Path) -> None:
        """Write a copy to a new file, meanwhile the ledger goes on. Raises `FileError` if there is one, and `DiskFull`."""
        await self._writer.inspect(lambda connection: copy_to(connection, path))

    def _end_chains_after_suspend(self) -> None:
        """Sign what is owed from now on in other chains, if the machine may have been copied or set back meanwhile. On the writer's thread.

        Looked at before each transition: whoever looks now and then would be late for those that wait when the machine wakes up. A snapshot
        of a virtual machine that is resumed, perhaps twice, was not asleep for its own kernel; what shows is that its clock is put right.
        """
        asleep, set_by = asleep_s(), set_by_s()
        if asleep - self._asleep > SUSPENDED_S or abs(set_by - self._set_by) > SUSPENDED_S:
            self._asleep, self._set_by = asleep, set_by
            self._chains.clear()

    async def close(self) -> None:
        """Finish what is queued."""
        with contextlib.suppress(LedgerError):  # then the next start takes us for a little younger
            await self.transact("age", lambda transaction: transaction.keep_age())
        await asyncio.to_thread(self._writer.close)
        os.close(self._lock)


def take_lock(folder: Path) -> int:
    """A descriptor that keeps others out until it is closed. One process has a ledger: two would draw on the same credit."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / "ledger.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as failed:
        raise LedgerError("the ledger cannot be opened", f"{folder}: {failed.strerror or failed}", "check the folder's owner") from failed
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    os.close(descriptor)
    raise InUse("the ledger is in use", f"another process has {folder}", "is an agent running? `nexus-edge status` tells")
