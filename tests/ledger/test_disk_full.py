"""A disk without room: nothing of a transition is written, others go on, and with room it goes on by itself."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus_edge.ledger import BlobStore, DiskFull, Ledger, Transaction
from nexus_edge.ledger.looking import verify
from tests.support.books import A

ROOM = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a mebibyte."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(tmp_path)], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def write(size: int, tx: Transaction) -> None:
    """Two events, of which the second may not fit."""
    tx.event("test", b"first", "made", {})
    tx.event("test", b"second", "made", {"fill": os.urandom(size)})


@pytest.mark.asyncio
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")
async def test_a_full_disk(small_disk: Path) -> None:
    ledger = await Ledger.open(small_disk / "a", A)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(ROOM // 2))
    with pytest.raises(DiskFull, match="goes on by itself"):
        await ledger.transact("large", lambda tx: write(ROOM // 2, tx))
    assert await ledger.read(lambda reader: reader.events("test")) == []
    ballast.unlink()
    await ledger.transact("small", lambda tx: write(1000, tx))
    assert len(await ledger.read(lambda reader: reader.events("test"))) == 2
    await ledger.close()
    assert verify(small_disk / "a", A.id).faults == ()


@pytest.mark.asyncio
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")
async def test_a_blob_that_does_not_fit(small_disk: Path) -> None:
    blobs = BlobStore(small_disk / "blobs")
    kept = await blobs.put(b"kept")
    with pytest.raises(DiskFull):
        await blobs.put(bytes(2 * ROOM))
    assert [path.name for path in (small_disk / "blobs").iterdir()] == [kept.hex()]
    assert await blobs.get(kept) == b"kept"


@pytest.mark.asyncio
async def test_what_does_not_fit_harms_nothing_else_of_its_batch(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path, A)

    def limit(tx: Transaction) -> None:
        pages = tx._connection.execute("PRAGMA page_count").fetchone()[0]
        tx._connection.execute(f"PRAGMA max_page_count = {pages + 20}")

    await ledger.transact("limit", limit)
    sizes = [100, 200_000, 100, 200_000, 100]
    tasks = [asyncio.ensure_future(ledger.transact(f"t{size}", lambda tx, size=size: write(size, tx))) for size in sizes]  # type: ignore[misc]
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, DiskFull) for one in ended] == [size > 1000 for size in sizes]
    assert len(await ledger.read(lambda reader: reader.events("test"))) == 6
    await ledger.close()
    assert verify(tmp_path, A.id).faults == ()


def test_a_writer_that_is_killed_leaves_whole_transitions(tmp_path: Path) -> None:
    """Killed at every point around a flush, in a process of its own."""
    program = """
        import asyncio, os, signal, sys
        from pathlib import Path
        from nexus_edge.ledger import Ledger
        from tests.support.books import A, lease

        def kill(name, point):
            if (name, point) == ("offer", sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)

        async def main():
            ledger = await Ledger.open(Path(sys.argv[1]), A, hook=kill)
            await ledger.transact("offer", lambda tx: (tx.reserve(lease()), tx.event("job", b"x", "offered", {})))

        asyncio.run(main())
    """
    for point, is_there in (("before-flush", False), ("after-flush", True), ("before-send", True)):
        folder = tmp_path / point
        ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(folder), point], check=False, timeout=60)
        assert ended.returncode == -9
        assert asyncio.run(found(folder)) == (is_there, is_there)


async def found(folder: Path) -> tuple[bool, bool]:
    """Whether the reservation is there, and the event that belongs to it."""
    ledger = await Ledger.open(folder, A)
    reserved = await ledger.read(lambda reader: any(book.reserved_out for book in reader.books()))
    events = await ledger.read(lambda reader: reader.events("job"))
    await ledger.close()
    return reserved, bool(events)
