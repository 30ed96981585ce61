"""Content by digest in files: inputs, outputs, proofs. A file is whole or not there, and is on the disk when `put` returns."""

import asyncio
import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nexus_edge.errors import LedgerError
from nexus_edge.ledger.errors import DiskFull
from nexus_edge.types import Bytes, Digest
from nexus_edge.wire.digests import blob_digest

LIMIT: Final = Bytes(16 << 30)
"""Content held at one time: some hundreds of the largest jobs. Who keeps a book of them drops what is no longer needed."""


class BlobStore:
    """A folder of files named by the digest of what is in them. Mode 0600: inputs and outputs are nobody else's business.

    The time of a file is how old the node was when it was last kept, in seconds (`age_s`, see `nexus_edge.ledger.age`): no wall clock that
    is set makes a file old. One that seems to come from the future, as after a restart of another counter, is as new as can be.
    """

    def __init__(self, folder: Path, limit: Bytes = LIMIT, age_s: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._limit = limit
        self._age_s = age_s
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for rest in folder.glob("*.part"):
            rest.unlink(missing_ok=True)
        self._sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        for file in folder.iterdir():
            if file.stat().st_mtime > age_s():
                self._mark(file)
        self._held = sum(self._sizes.values())

    @property
    def held(self) -> Bytes:
        """All content together."""
        return Bytes(self._held)

    async def put(self, content: bytes) -> Digest:
        """Keep it. Raises `DiskFull`, also beyond the limit, and `LedgerError`."""
        return await asyncio.to_thread(self._put, content)

    async def get(self, digest: Digest) -> bytes | None:
        """The content; None if it is not here, or damaged."""
        return await asyncio.to_thread(self._get, digest)

    async def has(self, digest: Digest) -> bool:
        """Whether there is a file."""
        return await asyncio.to_thread(self._path(digest).exists)

    async def size(self, digest: Digest) -> int | None:
        """Bytes of its file; None if it is not here."""
        return await asyncio.to_thread(self._size, digest)

    async def drop(self, digest: Digest, *, unused_s: float = 0.0) -> None:
        """Forget it, unless it was kept, or kept again, within so many seconds. Raises `LedgerError`."""
        await asyncio.to_thread(self._drop, digest, unused_s)

    async def unused(self, seconds: float) -> list[Digest]:
        """What was last kept longer ago than that."""
        return await asyncio.to_thread(self._unused, seconds)

    def _size(self, digest: Digest) -> int | None:
        try:
            return self._path(digest).stat().st_size
        except OSError:
            return None

    def _path(self, digest: Digest) -> Path:
        return self._folder / digest.hex()

    def _put(self, content: bytes) -> Digest:
        digest = blob_digest(content)
        path = self._path(digest)
        if self._get(digest) is not None and self._renewed(path):
            return digest
        with self._lock:  # room is taken before it is filled, or many at once would pass the limit
            if self._held + len(content) > self._limit:
                raise DiskFull(
                    "a file cannot be written",
                    f"{self._held} bytes are held, {len(content)} more pass the limit of {self._limit}",
                    "drop some",
                )
            self._held += len(content)
        try:
            self._free(self._write(path, content))
        except BaseException:
            self._free(len(content))
            raise
        return digest

    def _write(self, path: Path, content: bytes) -> int:
        """How many bytes it replaced: the same, or a damaged file."""
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            part.touch(mode=0o600, exist_ok=False)
            with part.open("r+b") as file:
                file.write(content)
                file.flush()
                self._mark(file.fileno())
                os.fsync(file.fileno())
            with self._lock:
                part.replace(path)
                replaced = self._sizes.get(path.name, 0)
                self._sizes[path.name] = len(content)
            self._sync()
        except OSError as failed:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            if failed.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull("a file cannot be written", str(failed), "make space: it goes on by itself") from failed
            raise LedgerError("a file cannot be written", str(failed)) from failed
        return replaced

    def _drop(self, digest: Digest, unused_s: float) -> None:
        path = self._path(digest)
        with self._lock:
            try:
                if unused_s and self._age_s() - path.stat().st_mtime < unused_s:
                    return
                path.unlink(missing_ok=True)
            except FileNotFoundError:
                pass
            except OSError as failed:
                raise LedgerError("a file cannot be deleted", str(failed)) from failed
            self._held -= self._sizes.pop(path.name, 0)

    def _unused(self, seconds: float) -> list[Digest]:
        found, before = [], self._age_s() - seconds
        for file in self._folder.iterdir():
            with contextlib.suppress(OSError, ValueError):
                if file.stat().st_mtime < before:
                    found.append(Digest(bytes.fromhex(file.name)))
        return found

    def _renewed(self, path: Path) -> bool:
        """Whether it is still here, and stays for those who keep it now."""
        with self._lock:
            try:
                self._mark(path)
            except OSError:
                return False
        return True

    def _mark(self, file: Path | int) -> None:
        """It is kept now."""
        os.utime(file, times=(self._age_s(),) * 2)

    def _free(self, size: int) -> None:
        with self._lock:
            self._held -= size

    def _get(self, digest: Digest) -> bytes | None:
        try:
            content = self._path(digest).read_bytes()
        except OSError:
            return None
        return content if blob_digest(content) == digest else None

    def _sync(self) -> None:
        """The new name too is on the disk."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
