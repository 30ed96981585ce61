"""A ledger that was changed behind its back is found out; nothing is changed, and a backup brings it back."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nexus_edge.errors import FileError, LedgerError
from nexus_edge.ledger import Damaged, Ledger, Unsynchronised, restore_backup
from nexus_edge.ledger.database import connect
from nexus_edge.ledger.integrity import check
from nexus_edge.ledger.looking import backup, look, verify
from nexus_edge.ledger.sealing import read_seal
from nexus_edge.types import MicroCredits, UnixMs
from tests.support.books import ZERO, A, B, lease, ref, settle, trade, work

pytestmark = pytest.mark.asyncio

FILE = "ledger.sqlite"
NOW = UnixMs(1_900_000_000_000)


async def traded(folder: Path) -> Path:
    """The folder of B's ledger after a few jobs, closed."""
    requester, worker = await trade(folder, 3)
    await requester.close()
    await worker.close()
    return folder / "b"


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / FILE)) as connection:
        changed = connection.execute(statement).rowcount
        connection.commit()
    assert changed > 0


async def test_a_sound_ledger(tmp_path: Path) -> None:
    folder = await traded(tmp_path)
    report = verify(folder, B.id)
    assert report.faults == ()
    assert (report.entries, report.signatures) == (4, report.objects)
    await (await Ledger.open(folder, B)).close()


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE entries SET amt = amt + 1 WHERE kind = 'job'", "entries: amt of 2"),
        ("UPDATE entries SET total = total + 1 WHERE n = 4", "does not follow"),
        ("UPDATE entries SET abandoned = 1 WHERE n = 4", "entries: abandoned"),
        ("DELETE FROM entries WHERE n = 4", "entries: a row is missing"),
        ("UPDATE accounts SET inn = inn + 1", "accounts: inn of"),
        ("UPDATE accounts SET granted = 7", "accounts: granted of"),
        ("UPDATE accounts SET reserved_in = 7", "accounts: reserved_in of"),
        ("UPDATE accounts SET verified = 7", "accounts: verified of"),
        ("INSERT INTO refs (peer, ref, state, amt) VALUES (x'00', x'00', 'expected', 9)", "refs: a row is there that no event explains"),
        ("INSERT INTO marks (key, value) VALUES ('restored', 9)", "marks: a row is there that no event explains"),
        ("UPDATE obligations SET state = 'open'", "obligations: state of"),
        ("UPDATE obligations SET price = 1", "signed with other terms"),
        ("UPDATE objects SET sig = zeroblob(64) WHERE t = 'ack'", "the signature is wrong"),
        ("UPDATE objects SET body = CAST(body || x'00' AS BLOB) WHERE t = 'lease'", "not canonical"),
        ("UPDATE objects SET id = zeroblob(32) WHERE t = 'lease' AND n = 1", "its bytes have another digest"),
        ("DELETE FROM objects WHERE t = 'ack' AND n = (SELECT max(n) FROM objects WHERE t = 'ack')", "its acknowledgement is missing"),
        ("DELETE FROM objects WHERE t = 'lease' AND n = 1", "it is missing"),
        ("DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)", "entries: a row is there that no event explains"),
        ("UPDATE events SET kind = 'gift' WHERE seq = 1", "cannot be read"),
        ("UPDATE events SET body = x'a0' WHERE seq = 1", "cannot be read"),
    ],
)
async def test_a_changed_row_is_found(tmp_path: Path, statement: str, fault: str) -> None:
    folder = await traded(tmp_path)
    change(folder, statement)
    assert any(fault in found for found in verify(folder, B.id).faults), verify(folder, B.id).faults
    before = (folder / FILE).read_bytes()
    with pytest.raises(Damaged, match=r"contradicts itself.*restore"):
        await Ledger.open(folder, B)
    assert (folder / FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE accounts SET inn = inn + 1", "accounts: inn of"),
        ("UPDATE accounts SET granted = 7", "accounts: granted of"),
        ("INSERT INTO refs (peer, ref, state, amt) VALUES (x'00', x'00', 'expected', 9)", "refs: a row is there that no event explains"),
        ("UPDATE obligations SET state = 'open' WHERE lease = (SELECT max(lease) FROM obligations)", "obligations: state of"),
        ("UPDATE obligations SET price = 1 WHERE state = 'owed'", "signed with other terms"),
        ("DELETE FROM obligations WHERE state = 'owed'", "obligations: "),
        ("DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)", "obligations: state of"),
        ("UPDATE objects SET body = CAST(body || x'00' AS BLOB) WHERE n = (SELECT max(n) FROM objects)", "not canonical"),
    ],
)
async def test_what_decides_from_now_on_is_checked_at_every_start(tmp_path: Path, statement: str, fault: str) -> None:
    """Sums, what is open, and what is new, on a ledger whose past is sealed."""
    folder = await traded(tmp_path)
    for number in (4, 5):  # one that is open when the ledger is sealed, and one that comes after
        worker = await Ledger.open(folder, B)
        order = lease(1000, number)
        await worker.transact("admit", lambda tx: tx.admit(order, "127.0.0.1", private=True))  # noqa: B023 - awaited here
        await worker.transact("deliver", lambda tx: tx.owe(order.id, ref(number)))  # noqa: B023
        await worker.close()
    change(folder, statement)
    with pytest.raises(Damaged, match=fault):
        await Ledger.open(folder, B)


async def test_what_is_settled_and_sealed_is_checked_on_demand_and_where_it_is_read(tmp_path: Path) -> None:
    folder = await traded(tmp_path)
    await (await Ledger.open(folder, B)).close()
    change(folder, "UPDATE objects SET sig = zeroblob(64) WHERE t = 'ack'")
    change(folder, "UPDATE objects SET body = (SELECT body FROM objects WHERE n = 1) WHERE t = 'lease'")
    worker = await Ledger.open(folder, B)
    faults = (await worker.verify()).faults
    assert any("the signature is wrong" in fault for fault in faults)
    assert verify(folder, B.id).faults == faults
    with pytest.raises(LedgerError, match="broken object"):
        await worker.object(lease(1000, 2).id)
    await worker.close()


async def test_a_seal_that_is_wrong_costs_time_and_nothing_else(tmp_path: Path) -> None:
    folder = await traded(tmp_path)
    await (await Ledger.open(folder, B)).close()
    change(folder, "UPDATE sealed_accounts SET inn = 7")
    await (await Ledger.open(folder, B)).close()
    assert verify(folder, B.id).faults == ()


async def test_a_start_takes_as_long_as_what_is_new_and_open(tmp_path: Path) -> None:
    """Counted in steps of the database, whatever the machine does beside it."""

    async def steps(jobs: int) -> int:
        requester, worker = await trade(tmp_path / str(jobs), jobs)
        await worker.close()
        worker = await Ledger.open(tmp_path / str(jobs) / "b", B)
        for number in range(jobs + 1, jobs + 4):
            await work(requester, worker, number)
        await settle(requester, worker)
        await requester.close()
        await worker.close()
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        with closing(sqlite3.connect(tmp_path / str(jobs) / "b" / FILE)) as connection:
            connection.set_progress_handler(count, 10)
            report = check(connection, B.id, read_seal(connection))
        assert (report.faults, report.signatures) == ((), 9)
        return counted

    assert await steps(60) < 1.2 * await steps(6)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    folder = await traded(tmp_path)
    (folder / FILE).write_bytes(b"x" * 10_000)
    assert verify(folder, B.id).faults != ()
    with pytest.raises(Damaged, match="restore"):
        await Ledger.open(folder, B)


async def test_a_page_that_the_disk_lost(tmp_path: Path) -> None:
    folder = await traded(tmp_path)
    content = bytearray((folder / FILE).read_bytes())
    content[4096 * 2 : 4096 * 3] = bytes(4096)
    (folder / FILE).write_bytes(content)
    assert verify(folder, B.id).faults != ()
    with pytest.raises(Damaged):
        await Ledger.open(folder, B)


async def test_another_programs_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(Damaged, match="another program"):
        await Ledger.open(tmp_path, B)


async def test_a_later_version(tmp_path: Path) -> None:
    folder = await traded(tmp_path)
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(Damaged, match="update nexus-edge"):
        await Ledger.open(folder, B)


async def test_a_backup_beside_a_busy_ledger_is_whole(tmp_path: Path) -> None:
    requester, worker = await trade(tmp_path, 2)
    await worker.backup(tmp_path / "copy")
    await work(requester, worker, 9)
    backup(tmp_path / "b", tmp_path / "second")
    with pytest.raises(FileError, match="exists already"):
        await worker.backup(tmp_path / "copy")
    await requester.close()
    await worker.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "copy", "second"]
    with closing(connect(tmp_path / "copy", read_only=True)) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (3,)
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


async def test_a_restored_ledger_issues_nothing_before_books_are_compared(tmp_path: Path) -> None:
    requester, worker = await trade(tmp_path, 2)
    await requester.backup(tmp_path / "copy")
    await work(requester, worker, 3)
    await settle(requester, worker)
    await requester.close()
    restored = restore_backup(tmp_path / "copy", tmp_path / "a" / FILE, A.id, NOW)
    assert restored.peers == 1
    assert restored.aside is not None
    assert verify(tmp_path / "a", A.id).faults == ()
    requester = await Ledger.open(tmp_path / "a", A, clock=lambda: NOW)
    assert await requester.read(lambda reader: reader.unsynchronised()) == [B.id]
    order = lease(10, 4)
    with pytest.raises(Unsynchronised):
        await requester.transact("offer", lambda tx: tx.reserve(order))
    with pytest.raises(Unsynchronised):
        await requester.transact("pay", lambda tx: tx.prepaid(B.id, MicroCredits(1), ref(5)))
    last = await worker.read(lambda reader: reader.last_entry(A.id, B.id))
    await requester.transact("compare", lambda tx: tx.informed(B.id, last))
    await requester.transact("compared", lambda tx: tx.synchronised(B.id))
    assert (await requester.read(lambda reader: reader.book(B.id))).out == 3000
    await requester.transact("offer", lambda tx: tx.reserve(order))
    await requester.close()
    await worker.close()
    assert verify(tmp_path / "a", A.id).faults == ()


async def test_a_damaged_ledger_is_restored(tmp_path: Path) -> None:
    requester, worker = await trade(tmp_path, 2)
    await worker.backup(tmp_path / "copy")
    await requester.close()
    await worker.close()
    (tmp_path / "b" / FILE).write_bytes(b"x" * 10_000)
    restored = restore_backup(tmp_path / "copy", tmp_path / "b" / FILE, B.id, NOW)
    assert restored.aside is not None
    assert restored.aside.read_bytes() == b"x" * 10_000
    worker = await Ledger.open(tmp_path / "b", B)
    assert (await worker.read(lambda reader: reader.book(A.id))).inn == 2000
    await worker.close()


async def test_a_restore_that_was_interrupted_is_no_new_beginning(tmp_path: Path) -> None:
    """The process is killed when the former ledger has been put aside, and its log has not."""
    folder = await traded(tmp_path)
    backup(folder, tmp_path / "copy")
    former = folder / f"{FILE}.before-1"
    (folder / FILE).rename(former)
    (folder / f"{FILE}-wal").write_bytes(b"what the former ledger wrote last")
    with pytest.raises(Damaged, match="restore was interrupted"):
        await Ledger.open(folder, B)
    assert not (folder / FILE).exists()
    assert restore_backup(tmp_path / "copy", folder / FILE, B.id, NOW).aside == former
    assert former.with_name(f"{former.name}-wal").read_bytes() == b"what the former ledger wrote last"
    worker = await Ledger.open(folder, B)
    assert (await worker.read(lambda reader: reader.book(A.id))).inn == 3000
    await worker.close()


async def test_a_backup_follows_no_link_and_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = await traded(tmp_path)
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / ".copy.part").symlink_to(tmp_path / "precious")

    def nothing(*_: object, **__: object) -> None:
        """Another who is as fast as the attacker."""

    monkeypatch.setattr(Path, "unlink", nothing)
    backup(folder, tmp_path / "copy")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert verify_copy(tmp_path / "copy") == 0o600


@pytest.mark.parametrize("taken", [False, True])
async def test_a_backup_on_a_memory_stick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    """Its file system has no links."""
    folder = await traded(tmp_path)

    def no_links(*_: object) -> None:
        if taken:
            (tmp_path / "copy").write_bytes(b"another's")
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    if taken:
        with pytest.raises(FileError, match="exists"):
            backup(folder, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"another's"
    else:
        backup(folder, tmp_path / "copy")
        assert verify_copy(tmp_path / "copy") == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "copy"]


def verify_copy(path: Path) -> int:
    """Its mode, if there is a ledger in it."""
    with closing(connect(path, read_only=True)) as connection:
        assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (1,)
    return path.stat().st_mode & 0o777


async def test_no_ledger_is_restored_from_a_bad_backup(tmp_path: Path) -> None:
    folder = await traded(tmp_path)
    backup(folder, tmp_path / "copy")
    before = (folder / FILE).read_bytes()
    with pytest.raises(Damaged, match=r"not sound|not ours|missing|no ledger"):
        restore_backup(tmp_path / "copy", folder / FILE, A.id, NOW)
    with closing(sqlite3.connect(tmp_path / "copy")) as connection:
        connection.execute("UPDATE accounts SET inn = 1")
        connection.commit()
    with pytest.raises(Damaged, match="not sound"):
        restore_backup(tmp_path / "copy", folder / FILE, B.id, NOW)
    (tmp_path / "copy").write_bytes(b"nonsense" * 1000)
    with pytest.raises(Damaged, match="the backup is damaged"):
        restore_backup(tmp_path / "copy", folder / FILE, B.id, NOW)
    with pytest.raises(FileError):
        restore_backup(tmp_path / "none", folder / FILE, B.id, NOW)
    assert (folder / FILE).read_bytes() == before
    assert {path.name for path in folder.iterdir()} <= {FILE, f"{FILE}-wal", f"{FILE}-shm", "ledger.lock"}


async def test_the_books_are_read_beside_their_owner(tmp_path: Path) -> None:
    requester, worker = await trade(tmp_path, 2)
    assert look(tmp_path / "b", B.id, lambda reader: reader.book(A.id).owed) == 2000
    assert verify(tmp_path / "b", B.id).faults == ()
    with pytest.raises(LedgerError, match="there is no ledger"):
        look(tmp_path, B.id, lambda reader: reader.books())
    await requester.close()
    await worker.close()
    assert look(tmp_path / "b", B.id, lambda reader: reader.object(reader.lines()[0].id).object.prev) != ZERO
