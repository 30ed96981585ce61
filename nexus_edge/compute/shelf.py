"""Small files by digest that can be made again: each with a digest of its content, all within a bound, the unused dropped first."""

import contextlib
import os
import secrets
from pathlib import Path

from nexus_edge.compute.errors import StoreError, StoreFull
from nexus_edge.types import Bytes
from nexus_edge.wire.digests import blob_digest

_DIGEST = 32


class Shelf:
    """A folder of at most `limit` bytes. Its methods block."""

    def __init__(self, folder: Path, limit: Bytes, *, synced: bool = False) -> None:
        self._folder = folder
        self._limit = limit
        self._synced = synced
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for rest in folder.glob("*.part"):
                rest.unlink(missing_ok=True)
        except OSError as failed:
            raise StoreError("a folder of the models cannot be used", str(failed)) from failed

    def names(self) -> list[bytes]:
        """What is here, by its digest."""
        found = []
        for path in self._folder.iterdir():
            with contextlib.suppress(ValueError):
                found.append(bytes.fromhex(path.name))
        return found

    def get(self, name: bytes) -> bytes | None:
        """The content; None if it is not here. What is damaged goes."""
        path = self._path(name)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        if data[:_DIGEST] != blob_digest(data[_DIGEST:]):
            self.drop(name)
            return None
        return data[_DIGEST:]

    def put(self, name: bytes, content: bytes) -> None:
        """Keep it, unless it is larger than everything may be. Raises `StoreFull` and `StoreError`."""
        size = _DIGEST + len(content)
        if size > self._limit:
            return
        path = self._path(name)
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            self._make_room(size)
            with part.open("xb") as file:
                file.write(blob_digest(content) + content)
                if self._synced:
                    file.flush()
                    os.fsync(file.fileno())
            part.replace(path)
            if self._synced:
                self._sync()
        except OSError as failed:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise StoreFull("a file of the models cannot be written", str(failed), "make space on the disk") from failed

    def drop(self, name: bytes) -> None:
        """Forget it."""
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: bytes) -> Path:
        return self._folder / name.hex()

    def _make_room(self, size: int) -> None:
        files = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self._folder.iterdir())
        used = sum(one[1] for one in files)
        for _, length, path in files:
            if used + size <= self._limit:
                return
            path.unlink(missing_ok=True)
            used -= length

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
