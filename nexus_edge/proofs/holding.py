"""Who keeps an opening and counts what is opened: a file, for all processes of its owner, or this process alone.

One rule holds everywhere: the rows that a proof opens are counted, and on the disk where there is one, *before* the proof leaves the
prover; a share is taken off the giver before it exists. A crash at any point can lose openings, and never gives one twice.
"""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from nexus_edge.errors import FileError, OpeningError
from nexus_edge.files import SecretFile
from nexus_edge.proofs import _native
from nexus_edge.proofs.opening import FORMAT, Opening, commitment_of
from nexus_edge.proofs.ports import Array, Port
from nexus_edge.proofs.rows import check_process
from nexus_edge.types import SecurityBits, TensorCommitment

NOUN = "opening"


class Holder(Protocol):
    """Keeps an opening."""

    def read(self) -> Opening:
        """The opening as it stands. Raises `OpeningError` if there is none."""

    def spend(self, commitment: TensorCommitment, rows: Iterable[int]) -> None:
        """Count rows of a commitment as opened, for good.

        Raises, having counted nothing, `OpeningSpent` if that is more than allowed, `OpeningError` if this is not the opening of that commitment.
        """


class HeldOpening:
    """An opening that this process holds, and loses when it ends. `save` moves it to a file.

    A fork has a copy to read, with which it can open nothing: it would count for itself.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening: Opening | None = opening
        self._process = os.getpid()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"HeldOpening({self._opening})"

    def read(self) -> Opening:
        """The opening as it stands."""
        if self._opening is None:
            raise OpeningError(
                "the opening is not here", "it was saved to a file", "use the file: two holders of one opening would count it twice"
            )
        return self._opening

    def _own(self) -> Opening:
        """The opening, for one who changes it."""
        check_process(self._process, NOUN)
        return self.read()

    def spend(self, commitment: TensorCommitment, rows: Iterable[int]) -> None:
        """Count rows as opened."""
        with self._lock:
            self._opening = self._own().of(commitment).spent(rows)

    def share(self, proofs: int) -> "HeldOpening":
        """An opening for `proofs` proofs, taken off this one; 0 for one who only verifies. Raises `OpeningSpent`."""
        with self._lock:
            self._opening, given = self._own().split(proofs)
        return HeldOpening(given)

    def save(self, path: Path | str, *, replace: bool = False) -> "OpeningFile":
        """Move it to a file of mode 0600, which from then on holds it. An existing file is replaced only if asked.

        When this returns, the file is on the disk. Raises `FileError`; then it is still held here, unless the file may have it already.
        """
        with self._lock:
            opening, file = self._own(), OpeningFile(path)
            data = opening.to_bytes()
            self._opening = None  # never in two places, wherever the write breaks off
            try:
                file.file.write(data, over=replace)
            except BaseException:
                if file.file.lacks(data):
                    self._opening = opening
                raise
        return file


class OpeningFile:
    """An opening in a file. Any number of threads and processes may use it at once; a copy of the file would count for itself, so share instead."""

    def __init__(self, path: Path | str) -> None:
        self.file = SecretFile(Path(path), FORMAT.limit, NOUN)

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.file.path

    def exists(self) -> bool:
        """Whether there is an opening."""
        return self.file.exists()

    def read(self) -> Opening:
        """The opening as it stands."""
        if not self.exists():
            raise OpeningError(
                "there is no opening", f"{self.path} does not exist or is empty", "whoever made the commitment has its opening"
            )
        return Opening.from_bytes(self.file.read())

    def spend(self, commitment: TensorCommitment, rows: Iterable[int]) -> None:
        """Count rows as opened; when this returns, they are on the disk."""
        with self.file.locked():
            self.file.replace(self.read().of(commitment).spent(rows).to_bytes())

    def share(self, proofs: int, path: Path | str) -> "OpeningFile":
        """A new file with an opening for `proofs` proofs, taken off this one; 0 for one who only verifies. Raises `OpeningSpent`."""
        other = OpeningFile(path)
        if other.exists():
            raise FileError(f"the {NOUN} cannot be written", f"{other.path} exists already", "name another file")
        with self.file.locked():
            kept, given = self.read().split(proofs)
            self.file.replace(kept.to_bytes())
        # Killed here, the share is lost. The other way round it would count twice.
        other.file.write(given.to_bytes(), over=False)
        return other


def commit_tensor(port: Port, array: Array, security: SecurityBits = 100) -> HeldOpening:
    """Commit to an input or output of a model by itself, ahead of any proof: hiding, with the whole budget of openings.

    Other models with a tensor of the same type and shape, scale and zero point can take the same commitment. Raises `BadInput`.
    """
    integers = port.to_integers(array)
    seed = _native.Seed.fresh()
    commitment = commitment_of(port.tensor, integers, security, seed)
    return HeldOpening(Opening.fresh(port.tensor, security, commitment, seed))
