"""Where a value lives that counts what its holder may still do: in this process, or in a file of its owner.

One rule holds everywhere: a change is made, and is on the disk where there is one, before what it permits happens; and the value is never in two
places. A crash can lose it, and never doubles it.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from nexus_edge.errors import OpeningError
from nexus_edge.files import SecretFile


class Encodable(Protocol):
    """A value that is kept."""

    def to_bytes(self) -> bytes:
        """The file."""


T = TypeVar("T", bound=Encodable)


class InMemory(Generic[T]):
    """Held by this process, and lost when it ends. A fork has a copy to read, which it cannot change: it would count for itself."""

    def __init__(self, value: T, noun: str) -> None:
        self._value: T | None = value
        self._noun = noun
        self._process = os.getpid()
        self._lock = threading.Lock()

    def read(self) -> T:
        """The value as it stands. Raises `OpeningError` if it was moved to a file."""
        if self._value is None:
            raise OpeningError(f"the {self._noun} is not here", "it was saved to a file", "use the file: two holders would count it twice")
        return self._value

    def change(self, to: Callable[[T], T]) -> None:
        """Replace the value; it stays as it is if `to` raises."""
        with self._lock:
            self._value = to(self._own())

    def move(self, file: SecretFile, *, over: bool) -> None:
        """Move it to a file, which from then on holds it.

        Raises `FileError`; then it is still held here, unless the file may have it already.
        """
        with self._lock:
            value = self._own()
            data = value.to_bytes()
            self._value = None  # never in two places, wherever the write breaks off
            try:
                file.write(data, over=over)
            except BaseException:
                if file.lacks(data):
                    self._value = value
                raise

    def _own(self) -> T:
        """The value, for one who changes it."""
        if os.getpid() != self._process:
            why = f"process {self._process} holds it, and this is a fork"
            raise OpeningError(f"the {self._noun} is not here", why, "save it to a file, which all can use")
        return self.read()


class InFile(Generic[T]):
    """Held by a file of mode 0600, for any number of threads and processes at once. A copy of the file would count for itself."""

    def __init__(self, path: Path | str, limit: int, noun: str, decode: Callable[[bytes], T], whence: str) -> None:
        self.file = SecretFile(Path(path), limit, noun)
        self._noun = noun
        self._decode = decode
        self._whence = whence

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.file.path

    def exists(self) -> bool:
        """Whether there is one."""
        return self.file.exists()

    def read(self) -> T:
        """The value as it stands. Raises `OpeningError` if there is none."""
        if not self.exists():
            raise OpeningError(f"there is no {self._noun}", f"{self.path} does not exist or is empty", self._whence)
        return self._decode(self.file.read())

    def change(self, to: Callable[[T], T]) -> None:
        """Replace the value; when this returns, it is on the disk."""
        with self.file.locked():
            self.file.replace(to(self.read()).to_bytes())
