"""Content by digest in files: inputs, outputs, proofs. A file is whole or not there, and is on the disk when `put` returns."""

import asyncio
import contextlib
import errno
import os
import secrets
from pathlib import Path

from nexus_edge.errors import LedgerError
from nexus_edge.ledger.errors import DiskFull
from nexus_edge.types import Digest
from nexus_edge.wire.digests import blob_digest


class BlobStore:
    """A folder of files named by the digest of what is in them. Mode 0600: inputs and outputs are nobody else's business."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for rest in folder.glob("*.part"):
            rest.unlink(missing_ok=True)

    async def put(self, content: bytes) -> Digest:
        """Keep it. Raises `DiskFull` and `LedgerError`."""
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

    async def drop(self, digest: Digest) -> None:
        """Forget it."""
        await asyncio.to_thread(self._path(digest).unlink, missing_ok=True)

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
        if self._get(digest) is not None:
            return digest
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            part.touch(mode=0o600, exist_ok=False)
            with part.open("r+b") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            self._sync()
        except OSError as failed:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            if failed.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull("a file cannot be written", str(failed), "make space: it goes on by itself") from failed
            raise LedgerError("a file cannot be written", str(failed)) from failed
        return digest

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
