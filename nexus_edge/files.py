"""Reading files under a size limit, and writing them whole or not at all."""

import os
import stat
import tempfile
from pathlib import Path

from nexus_edge.errors import FileError


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
            return file.read(length)
    except OSError as failed:
        raise FileError(f"the {noun} cannot be read", _why(failed, path)) from failed


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


def _why(failed: OSError, path: Path) -> str:
    return f"{path}: {failed.strerror or failed}"
