"""Reading files under a size limit, and writing them whole or not at all; secrets for their owner alone, and synced."""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nexus_edge.errors import FileError

OTHERS: Final = 0o077
"""What the mode of a secret may not have: anything for its group or for everyone."""


def read_bounded(path: Path, limit: int, noun: str) -> bytes:
    """The content of a file of at most `limit` bytes; `noun` says in errors what it should have been."""
    data = read_prefix(path, limit + 1, noun)
    if len(data) > limit:
        raise FileError(f"the {noun} cannot be read", f"{path} has more than {limit} bytes")
    return data


def read_prefix(path: Path, length: int, noun: str) -> bytes:
    """The first `length` bytes of a file, or all if it has fewer."""
    try:
        with path.open("rb") as file:
            # `read` allocates what it is asked for: a generous limit must not cost a small file gibibytes. Some special files say 0.
            size = os.fstat(file.fileno()).st_size
            return file.read(min(length, size) if size else length)
    except OSError as failed:
        raise FileError(f"the {noun} cannot be read", _why(failed, path)) from failed


def check_writable(path: Path, noun: str) -> None:
    """Raise what `write_whole` would, as far as that can be known before there is anything to write."""
    if path.is_dir():
        raise FileError(f"the {noun} cannot be written", f"{path} is a folder", "name a file in it")
    if path.exists() and not path.is_file():
        return
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as failed:
        raise FileError(f"the {noun} cannot be written", _why(failed, path)) from failed


def write_whole(path: Path, data: bytes, noun: str) -> None:
    """Write a file so that no reader ever sees half of it. Pipes and devices are written directly."""
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(data)
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(file.name, 0o666 & ~umask)  # noqa: PTH101 - the open file's own name
                os.replace(file.name, path)  # noqa: PTH105 - likewise
            except BaseException:
                os.unlink(file.name)  # noqa: PTH108 - likewise
                raise
    except OSError as failed:
        raise FileError(f"the {noun} cannot be written", _why(failed, path)) from failed


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file of mode 0600 to fill, which at the end is on the disk and gets its name; never in the place of another. Raises `OSError`.

    Its name until then is nobody's guess: in a folder where others may write, a link could lie at one that can be foreseen.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        _sync(part)
        try:
            os.link(part, path)  # unlike a rename it never replaces what another wrote meanwhile
        except PermissionError:  # a file system without links, of a memory stick
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _sync(path.parent)


class SecretFile:
    """A file of mode 0600 that several processes read, change and replace.

    A change is whole or not there, and on the disk when it returns. `locked` is exclusive: between processes and threads, on one machine
    and over network file systems that have locks.
    """

    def __init__(self, path: Path, limit: int, noun: str) -> None:
        self.path = Path(os.path.realpath(path))  # a link is followed once: what it points to is replaced, never the link
        self.limit = limit
        self.noun = noun

    def exists(self) -> bool:
        """Whether there is content. A file without any is the place that a killed process had kept for its content."""
        try:
            return self.path.stat().st_size > 0
        except OSError:
            return False

    def read(self) -> bytes:
        """The content: always a whole one. Raises `FileError`, also if others may read it."""
        self._check_private()
        return read_bounded(self.path, self.limit, self.noun)

    def lacks(self, data: bytes) -> bool:
        """Whether this is certainly not its content: what cannot be read might be."""
        try:
            with self.path.open("rb") as file:
                return file.read(len(data) + 1) != data
        except FileNotFoundError:
            return True
        except OSError:
            return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else is between `locked` and its end. Raises `FileError` if there is no file."""
        with self._locked(os.O_RDWR):
            yield

    def write(self, data: bytes, *, over: bool) -> None:
        """Write the file; raises `FileError` if there is one, unless it is to be written over."""
        with self._locked(os.O_RDWR | os.O_CREAT):
            if self.exists() and not over:
                raise FileError(f"the {self.noun} cannot be written", f"{self.path} exists already", "name another file")
            try:
                self.replace(data)
            except BaseException:
                if not self.exists():
                    self.path.unlink(missing_ok=True)
                raise

    def replace(self, data: bytes) -> None:
        """Write the file, whatever was there: for one who holds the lock."""
        try:
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")  # of mode 0600
            try:
                with open(handle, "wb") as file:  # noqa: PTH123 - an open file's handle
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self.path)  # noqa: PTH105 - the open file's own name
            except BaseException:
                os.unlink(name)  # noqa: PTH108 - likewise
                raise
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as failed:
            raise FileError(f"the {self.noun} cannot be written", _why(failed, self.path)) from failed

    def _check_private(self) -> None:
        try:
            mode = stat.S_IMODE(self.path.stat().st_mode)
        except OSError as failed:
            raise FileError(f"the {self.noun} cannot be read", _why(failed, self.path)) from failed
        if mode & OTHERS:
            why = f"{self.path} has mode {mode:04o}, so that others may have read it"
            raise FileError(f"the {self.noun} is not private", why, f"chmod 600 {self.path}, if nobody did")

    @contextmanager
    def _locked(self, flags: int) -> Iterator[None]:
        """A lock belongs to a file and not to its name: who waited until the file was replaced waits again, for the new one."""
        try:
            while True:
                handle = os.open(self.path, flags | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX)
                    if _same_file(handle, self.path):
                        break
                except BaseException:
                    os.close(handle)
                    raise
                os.close(handle)
        except OSError as failed:
            raise FileError(f"the {self.noun} cannot be locked", _why(failed, self.path)) from failed
        try:
            yield
        finally:
            os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _why(failed: OSError, path: Path) -> str:
    return f"{path}: {failed.strerror or failed}"
