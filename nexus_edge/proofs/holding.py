"""Who keeps an opening and counts what is opened: a file, for all processes of its owner, or this process alone.

One rule holds everywhere: the rows that a proof opens are counted, and on the disk where there is one, *before* the proof leaves the
prover; a share is taken off the giver before it exists. A crash at any point can lose openings, and never gives one twice.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from nexus_edge.errors import FileError
from nexus_edge.proofs import _native
from nexus_edge.proofs.keeping import InFile, InMemory
from nexus_edge.proofs.opening import FORMAT, Opening, commitment_of
from nexus_edge.proofs.ports import Array, Port
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


class HeldOpening(InMemory[Opening]):
    """An opening that this process holds, and loses when it ends. `save` moves it to a file.

    A fork has a copy to read, with which it can open nothing: it would count for itself.
    """

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening, NOUN)

    def __repr__(self) -> str:
        return f"HeldOpening({self._value})"

    def spend(self, commitment: TensorCommitment, rows: Iterable[int]) -> None:
        """Count rows as opened."""
        self.change(lambda opening: opening.of(commitment).spent(rows))

    def share(self, proofs: int) -> "HeldOpening":
        """An opening for `proofs` proofs, taken off this one; 0 for one who only verifies. Raises `OpeningSpent`."""
        return HeldOpening(_share(self, proofs))

    def save(self, path: Path | str, *, replace: bool = False) -> "OpeningFile":
        """Move it to a file of mode 0600, which from then on holds it. An existing file is replaced only if asked.

        When this returns, the file is on the disk. Raises `FileError`; then it is still held here, unless the file may have it already.
        """
        file = OpeningFile(path)
        self.move(file.file, over=replace)
        return file


class OpeningFile(InFile[Opening]):
    """An opening in a file. Any number of threads and processes may use it at once; a copy of the file would count for itself, so share instead."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, FORMAT.limit, NOUN, Opening.from_bytes, "whoever made the commitment has its opening")

    def spend(self, commitment: TensorCommitment, rows: Iterable[int]) -> None:
        """Count rows as opened; when this returns, they are on the disk."""
        self.change(lambda opening: opening.of(commitment).spent(rows))

    def share(self, proofs: int, path: Path | str) -> "OpeningFile":
        """A new file with an opening for `proofs` proofs, taken off this one; 0 for one who only verifies. Raises `OpeningSpent`."""
        other = OpeningFile(path)
        if other.exists():
            raise FileError(f"the {NOUN} cannot be written", f"{other.path} exists already", "name another file")
        given = _share(self, proofs)
        # Killed here, the share is lost. The other way round it would count twice.
        other.file.write(given.to_bytes(), over=False)
        return other


def _share(holder: HeldOpening | OpeningFile, proofs: int) -> Opening:
    """Take an opening for `proofs` proofs off a holder's."""
    shares: list[Opening] = []

    def kept(opening: Opening) -> Opening:
        kept, given = opening.split(proofs)
        shares.append(given)
        return kept

    holder.change(kept)
    return shares[0]


def commit_tensor(port: Port, array: Array, security: SecurityBits = 100) -> HeldOpening:
    """Commit to an input or output of a model by itself, ahead of any proof: hiding, with the whole budget of openings.

    Other models with a tensor of the same type and shape, scale and zero point can take the same commitment. Raises `BadInput`.
    """
    integers = port.to_integers(array)
    seed = _native.Seed.fresh()
    commitment = commitment_of(port.tensor, integers, security, seed)
    return HeldOpening(Opening.fresh(port.tensor, security, commitment, seed))
