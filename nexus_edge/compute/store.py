"""Models on the disk: content under the digest of its manifest, in chunks that are checked whenever they are written or read.

    objects/<digest>/manifest     canonical CBOR: size, and the digest of every chunk
    objects/<digest>/content
    incoming/<digest>/...         the same, with chunks missing

An object appears by one rename, after everything in it is on the disk: no crash leaves half a one. What was incoming when the process ended
can be continued, or goes after a while. The bound counts what is on the disk, incoming chunks included; room is made by dropping what was
used longest ago, and never what is pinned.

All methods may be called from any thread. All but `in`, `path`, `pin` and `unpin` wait for the disk, and are not for an event loop.
"""

import contextlib
import errno
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nexus_edge.compute.errors import BadUpload, ModelDamaged, ModelMissing, StoreError, StoreFull
from nexus_edge.types import Bytes, Digest
from nexus_edge.wire.digests import blob_digest, derive
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import CHUNK, CHUNKS, MIB, MODEL, UPLOAD_KEPT_S
from nexus_edge.wire.messages import Manifest, decode_message, encode_message

INCOMING: Final = 16
"""Uploads at once. Another one makes place: of those from where most are, and there of who brings most, the one that was silent longest."""

Origin = tuple[str, bytes]
"""Where an upload comes from: a network, and a peer there."""
_HERE: Final[Origin] = ("", b"")
ASKED: Final = 256
"""Missing chunks named in one answer."""
_MANIFEST_LIMIT: Final = 64 * CHUNKS  # 34 bytes a digest, and a little


def manifest_digest(manifest: Manifest) -> Digest:
    """What names an object."""
    return derive("manifest", encode_message(manifest))


@dataclass
class _Incoming:
    """An upload: what is there of it."""

    folder: Path
    manifest: Manifest
    missing: set[int]
    origin: Origin = _HERE
    touched: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def written(self) -> int:
        return self.manifest.size - sum(_length(self.manifest, index) for index in self.missing)


class ModelStore:
    """The store in a folder, of at most `limit` bytes."""

    def __init__(self, folder: Path, limit: Bytes) -> None:
        self.limit = limit
        self._objects = folder / "objects"
        self._incoming = folder / "incoming"
        self._lock = threading.RLock()  # of folders and uploads: held while the disk works
        self._short = threading.Lock()  # of what is here and pinned: never held for long
        self._pins: Counter[Digest] = Counter()
        self._sizes: dict[Digest, int] = {}
        self._uploads: dict[Digest, _Incoming] = {}
        with _disk("the model store cannot be opened"):
            for place in (self._objects, self._incoming):
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._recover()

    # What is here

    @property
    def used(self) -> Bytes:
        """Bytes of content on the disk, incoming chunks included."""
        with self._lock, self._short:
            return Bytes(sum(self._sizes.values()) + sum(upload.written for upload in self._uploads.values()))

    def objects(self) -> dict[Digest, Bytes]:
        """Whole objects and their sizes."""
        with self._short:
            return {digest: Bytes(size) for digest, size in self._sizes.items()}

    def __contains__(self, digest: object) -> bool:
        return digest in self._sizes

    def manifest(self, digest: Digest) -> Manifest:
        """The manifest of an object, checked. Raises `ModelMissing` and `ModelDamaged`."""
        return self._read_manifest(self._folder(digest), digest)

    def path(self, digest: Digest) -> Path:
        """The file of an object, for one who checks what is in it. It counts as a use. Raises `ModelMissing`."""
        folder = self._folder(digest)
        self._touch(folder)
        return folder / "content"

    def read(self, digest: Digest, start: int, length: int) -> bytes:
        """A part of an object; every chunk that it touches is checked first. Raises `ModelMissing` and `ModelDamaged`."""
        manifest = self.manifest(digest)
        first, end = start // CHUNK, min(manifest.size, start + length)
        parts = []
        try:
            with self.path(digest).open("rb") as file:
                for index in range(first, -(-end // CHUNK)):
                    file.seek(index * CHUNK)
                    chunk = file.read(_length(manifest, index))
                    if blob_digest(chunk) != manifest.chunks[index]:
                        raise self._damaged(digest, f"chunk {index} has changed")
                    parts.append(chunk)
        except OSError as failed:
            if digest not in self:
                raise ModelMissing("the model is not here any more", digest.hex()) from failed
            raise self._damaged(digest, str(failed)) from failed
        return b"".join(parts)[start - first * CHUNK : end - first * CHUNK]

    def check(self, digest: Digest) -> None:
        """Read everything. Raises `ModelDamaged`, and then the object is gone."""
        size = self.manifest(digest).size
        for start in range(0, size, CHUNK):
            self.read(digest, start, CHUNK)

    # What stays

    def pin(self, digest: Digest) -> None:
        """Keep it until `unpin` is called as often. Raises `ModelMissing`."""
        with self._short:
            self._folder(digest)
            self._pins[digest] += 1

    def unpin(self, digest: Digest) -> None:
        """Once for each `pin`."""
        with self._short:
            self._pins[digest] -= 1
            if self._pins[digest] <= 0:
                del self._pins[digest]

    def move_pins(self, gone: Digest, digest: Digest) -> None:
        """Who keeps one that is gone keeps another from now on."""
        with self._short:
            pins = self._pins.pop(gone, 0)
            if pins:
                self._pins[digest] += pins

    def is_pinned(self, digest: Digest) -> bool:
        """Whether somebody uses it now."""
        with self._short:
            return digest in self._pins

    def drop(self, digest: Digest) -> None:
        """Forget it, pinned or not."""
        gone = self._hide(digest)
        if gone is not None:
            shutil.rmtree(gone, ignore_errors=True)

    # What comes

    def put(self, content: bytes) -> Digest:
        """Keep content that is in memory. Raises `StoreFull` and `StoreError`."""
        chunks = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
        digest = self.begin(Manifest(len(content), tuple(blob_digest(chunk) for chunk in chunks)))
        for index in self.missing(digest, len(chunks)):
            self.put_chunk(digest, index, chunks[index])
        return digest

    def put_file(self, path: Path) -> Digest:
        """Keep the content of a file. Raises `StoreFull` and `StoreError`."""
        with _disk("the file cannot be read"), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 < size <= MODEL:
                raise StoreError("the file cannot be kept", f"{path} has {size} bytes, a model has 1 to {MODEL}")
            digests = []
            while chunk := file.read(CHUNK):
                digests.append(blob_digest(chunk))
            digest = self.begin(Manifest(size, tuple(digests)))
            for index in self.missing(digest, len(digests)):
                file.seek(index * CHUNK)
                self.put_chunk(digest, index, file.read(CHUNK))
        return digest

    def begin(self, manifest: Manifest, origin: Origin = _HERE) -> Digest:
        """Announce an object, or go on with one that was begun. Raises `StoreFull` if it can never fit, and `StoreError`."""
        digest = manifest_digest(manifest)
        with self._lock:
            if digest in self._sizes or digest in self._uploads:
                return digest
            with self._short:
                pinned = sum(self._sizes[one] for one in self._pins if one in self._sizes)
            if manifest.size + pinned > self.limit:
                why = f"it has {_mib(manifest.size)} MiB, the store {_mib(self.limit)} MiB, of which {_mib(pinned)} MiB are in use"
                raise StoreFull("the model cannot be kept", why, "raise `compute.models`, or wait until jobs have ended")
            self._thin_out()
            folder = self._incoming / digest.hex()
            with _disk("the model cannot be kept"):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(mode=0o700)
                _write(folder / "manifest", encode_message(manifest))
                (folder / "content").touch(mode=0o600)
            self._uploads[digest] = _Incoming(folder, manifest, set(range(len(manifest.chunks))), origin)
        return digest

    def missing(self, digest: Digest, most: int = ASKED) -> tuple[int, ...]:
        """The first chunks of an upload that are not here; none of a whole object. Raises `ModelMissing` and, as `put_chunk`, `StoreFull`."""
        with self._lock:
            if digest in self._sizes:
                return ()
            upload = self._upload(digest)
            left = tuple(sorted(upload.missing)[:most])
        if not left:
            with upload.lock:  # whoever brought the last chunk may still be syncing, or have failed at it
                if digest not in self._sizes:
                    self._finish(digest, upload)
        return left

    def put_chunk(self, digest: Digest, index: int, data: bytes) -> bool:
        """Add a chunk to an upload; the last one makes it an object. Whether it is whole now.

        Raises `BadUpload` for a chunk that is not what the manifest says, `StoreFull`, `ModelMissing` and `StoreError`; what was there stays.
        """
        with self._lock:
            if digest in self._sizes:
                return True
            upload = self._upload(digest)
        if not 0 <= index < len(upload.manifest.chunks) or blob_digest(data) != upload.manifest.chunks[index]:
            raise BadUpload("the chunk is refused", f"chunk {index} is not what the manifest says")
        with upload.lock:
            if index not in upload.missing:
                return digest in self._sizes
            self._make_room(len(data), keep=digest)
            with _disk("a chunk cannot be kept"), (upload.folder / "content").open("r+b") as file:
                file.seek(index * CHUNK)
                file.write(data)
            upload.touched = time.monotonic()
            with self._lock:
                upload.missing.discard(index)
            if not upload.missing:
                self._finish(digest, upload)
            return not upload.missing

    def expire(self) -> None:
        """Drop uploads that have been silent for too long."""
        with self._lock:
            for digest, upload in list(self._uploads.items()):
                if time.monotonic() - upload.touched > UPLOAD_KEPT_S:
                    self._abandon(digest)

    def _finish(self, digest: Digest, upload: _Incoming) -> None:
        with _disk("the model cannot be kept"):
            _sync(upload.folder / "content")
            _sync(upload.folder)
            with self._lock:
                upload.folder.rename(self._objects / digest.hex())
                del self._uploads[digest]
                with self._short:
                    self._sizes[digest] = upload.manifest.size
            self._touch(self._objects / digest.hex())
            _sync(self._objects)

    def _make_room(self, size: int, keep: Digest) -> None:
        """Drop what was used longest ago until so much more fits. Raises `StoreFull`."""
        gone: list[Path] = []
        try:
            with self._lock:
                while self.used + size > self.limit:
                    loose = sorted(self._loose(), key=lambda one: _used_at(self._objects / one.hex()))
                    silent = [one for one in self._uploads if one != keep]
                    if loose:
                        hidden = self._hide(loose[0], unless_pinned=True)
                        gone += [] if hidden is None else [hidden]
                    elif silent:
                        self._abandon(self._crowding(silent))
                    else:
                        raise StoreFull("the chunk cannot be kept", f"{_mib(self.limit)} MiB are in use", "raise `compute.models`")
        finally:
            for folder in gone:
                shutil.rmtree(folder, ignore_errors=True)

    def _loose(self) -> list[Digest]:
        with self._short:
            return [one for one in self._sizes if one not in self._pins]

    def _hide(self, digest: Digest, *, unless_pinned: bool = False) -> Path | None:
        """Put an object out of sight, by one rename. What is left of it may go slowly, or at the next start."""
        with self._lock:
            with self._short:
                if digest not in self._sizes or (unless_pinned and digest in self._pins):
                    return None
                del self._sizes[digest]
            gone = self._incoming / f"{digest.hex()}.gone.{time.monotonic_ns()}"
            with _disk("a model cannot be removed"), contextlib.suppress(FileNotFoundError):
                (self._objects / digest.hex()).rename(gone)
        return gone

    def _thin_out(self) -> None:
        self.expire()
        while len(self._uploads) >= INCOMING:
            self._abandon(self._crowding(list(self._uploads)))

    def _crowding(self, among: Sequence[Digest]) -> Digest:
        """The upload that makes place for others. Names cost nothing, so that networks are counted first."""
        networks = Counter(self._uploads[one].origin[0] for one in among)
        origins = Counter(self._uploads[one].origin for one in among)

        def rank(one: Digest) -> tuple[int, int, float]:
            upload = self._uploads[one]
            return networks[upload.origin[0]], origins[upload.origin], -upload.touched

        return max(among, key=rank)

    def _abandon(self, digest: Digest) -> None:
        shutil.rmtree(self._uploads.pop(digest).folder, ignore_errors=True)

    # What was here at the start

    def _recover(self) -> None:
        for folder in self._objects.iterdir():
            digest = _named(folder)
            try:
                if digest is None:
                    raise ModelDamaged("the model is damaged", "its name is not a digest")
                manifest = self._read_manifest(folder, digest)
                if (folder / "content").stat().st_size != manifest.size:
                    raise ModelDamaged("the model is damaged", "its length has changed")
            except (ModelDamaged, OSError):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            self._sizes[digest] = manifest.size
        for folder in self._incoming.iterdir():
            digest = _named(folder)
            try:
                if digest is None or digest in self._sizes:
                    raise ModelDamaged("the upload is of no use", "it has no digest, or has arrived")
                manifest = self._read_manifest(folder, digest)
                self._uploads[digest] = _Incoming(folder, manifest, _unwritten(folder / "content", manifest))
            except (ModelDamaged, OSError):
                shutil.rmtree(folder, ignore_errors=True)
        # One that only lacked its rename.
        for digest, upload in list(self._uploads.items()):
            if not upload.missing:
                self._finish(digest, upload)

    def _folder(self, digest: Digest) -> Path:
        if digest not in self._sizes:
            raise ModelMissing("the model is not here", digest.hex())
        return self._objects / digest.hex()

    def _upload(self, digest: Digest) -> _Incoming:
        upload = self._uploads.get(digest)
        if upload is None:
            raise ModelMissing("the upload is not known", digest.hex(), "send its manifest first")
        return upload

    def _read_manifest(self, folder: Path, digest: Digest) -> Manifest:
        try:
            manifest = decode_message(Manifest, (folder / "manifest").read_bytes(), _MANIFEST_LIMIT)
        except (OSError, BadObject) as broken:
            raise self._damaged(digest, f"its manifest cannot be read: {broken}") from broken
        if manifest_digest(manifest) != digest:
            raise self._damaged(digest, "its manifest has changed")
        return manifest

    def _damaged(self, digest: Digest, why: str) -> ModelDamaged:
        """The error, after the object is out of the way: it can be fetched again."""
        self.drop(digest)
        return ModelDamaged("a model on the disk is damaged", f"{digest.hex()}: {why}", "it is fetched or imported anew when it is needed")

    def _touch(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            os.utime(folder)


def _length(manifest: Manifest, index: int) -> int:
    return min(CHUNK, manifest.size - index * CHUNK)


def _unwritten(content: Path, manifest: Manifest) -> set[int]:
    """The chunks that a file lacks: found by their digests, whatever the crash left."""
    missing = set()
    with content.open("rb") as file:
        for index, digest in enumerate(manifest.chunks):
            file.seek(index * CHUNK)
            if blob_digest(file.read(_length(manifest, index))) != digest:
                missing.add(index)
    return missing


def _named(folder: Path) -> Digest | None:
    try:
        digest = bytes.fromhex(folder.name)
    except ValueError:
        return None
    return Digest(digest) if len(digest) == 32 and digest.hex() == folder.name else None


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk(what: str) -> Iterator[None]:
    """Say what the disk said."""
    try:
        yield
    except OSError as failed:
        if failed.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFull(what, str(failed), "make space on the disk") from failed
        raise StoreError(what, str(failed)) from failed


def _mib(size: int) -> int:
    return -(-size // MIB)
