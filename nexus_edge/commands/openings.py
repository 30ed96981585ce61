"""Openings as files: where they are, and the commands that make, show and share them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nexus_edge.commands.models import import_model
from nexus_edge.commands.result import Result, Stopwatch
from nexus_edge.errors import FileError, UsageError
from nexus_edge.files import read_bounded
from nexus_edge.progress import ProgressBars
from nexus_edge.proofs import HeldOpening, Opening, OpeningFile, VerifyingKey, commit_tensor
from nexus_edge.proofs.arrays import read_tensors
from nexus_edge.proofs.holding import Holder
from nexus_edge.proofs.key import KEY_LIMIT
from nexus_edge.proofs.ports import Port
from nexus_edge.units import show_name, show_size

Role = Literal["input", "output"]


@dataclass(frozen=True)
class Place:
    """Where the opening of one input or output is, or will be."""

    path: Path
    named: bool
    """By the user. If not, the file lies beside the proof, belongs to it and is replaced with it."""
    role: Role
    port: Port


@dataclass(frozen=True)
class Kept:
    """An opening in its place."""

    place: Place
    opening: Opening

    def data(self) -> dict[str, Any]:
        """For JSON."""
        whose = {"role": self.place.role, "name": self.place.port.name}
        return {**whose, "file": str(self.place.path), **self.opening.describe()}

    def line(self) -> str:
        """For people."""
        whose = f"{self.place.role} {show_name(self.place.port.name)}"
        return f"opening   {self.place.path}  secret, of {whose}; {_left(self.opening)}"


def tensor_places(named: Sequence[Path] | None, proof: Path, role: Role, ports: Sequence[Port]) -> list[Place]:
    """The places of a proof's openings: those that the user named, one for each tensor, or beside the proof.

    Beside `p.bin` they are `p.bin.opening` and `p.bin.output.opening`; of several tensors `p.bin.0.opening`, `p.bin.output.0.opening` and so on.
    """
    if named is not None:
        if len(named) != len(ports):
            names = ", ".join(port.name for port in ports)
            raise UsageError(
                "wrong usage", f"{len(named)} openings for {len(ports)} {role}s: {names}", "name one file for each, in this order"
            )
        return [Place(path, True, role, port) for path, port in zip(named, ports, strict=True)]
    infix = "" if role == "input" else ".output"
    numbers = [""] if len(ports) == 1 else [f".{index}" for index in range(len(ports))]
    return [
        Place(proof.with_name(f"{proof.name}{infix}{number}.opening"), False, role, port)
        for number, port in zip(numbers, ports, strict=True)
    ]


def usable(places: Sequence[Place]) -> list[OpeningFile | None]:
    """The openings of commitments that are there already: those that the user named and that exist."""
    files = [OpeningFile(place.path) if place.named else None for place in places]
    return [file if file is not None and file.exists() else None for file in files]


def check_free(places: Sequence[Place], proof: Path) -> None:
    """Raise before a proof is made whose openings could not be written."""
    for place in places:
        if place.named and OpeningFile(place.path).exists():
            raise FileError("the opening cannot be written", f"{place.path} exists already", "name another file")
        if not place.named and proof.exists() and not proof.is_file():
            option = f"--{place.role}-opening"
            raise UsageError(
                "wrong usage", f"beside {proof}, which is no file, there is no place for an opening", f"name one with {option}"
            )


def save_openings(places: Sequence[Place], holders: Sequence[Holder | None]) -> list[Kept]:
    """Write the new ones to their places; then all are on the disk."""
    kept = []
    for place, holder in zip(places, holders, strict=False):
        if isinstance(holder, HeldOpening):
            holder = holder.save(place.path, replace=not place.named)
        if holder is not None:
            kept.append(Kept(place, holder.read()))
    return kept


def commit_command(arguments: argparse.Namespace) -> Result:
    """`nexus-edge commit`."""
    watch = Stopwatch()
    if arguments.key is not None:
        if arguments.security is not None or arguments.semantics is not None:
            raise UsageError("wrong usage", "a verifying key fixes --security and --semantics")
        key = VerifyingKey.from_bytes(read_bounded(arguments.key, KEY_LIMIT, "verifying key"))
        ports, security = key.inputs, key.security
    else:
        with ProgressBars() as bars:
            ports = import_model(arguments.model, arguments.semantics, bars, watch).inputs
        security = arguments.security or 100
    places = tensor_places(arguments.opening, arguments.opening[0], "input", ports)
    check_free(places, arguments.opening[0])
    inputs = read_tensors(arguments.input, ports, "input")
    with watch.step("commit"):
        held = [commit_tensor(port, array, security) for port, array in zip(ports, inputs, strict=True)]
    kept = save_openings(places, held)
    lines = [line for one in kept for line in (f"committed {one.opening.commitment.hex()}", one.line())]
    return Result({"openings": [one.data() for one in kept], **watch.fields()}, lines)


def opening_inspect(arguments: argparse.Namespace) -> Result:
    """`nexus-edge opening inspect`."""
    opening = OpeningFile(arguments.opening).read()
    lines = [
        f"commitment  {opening.commitment.hex()}",
        f"tensor      {opening.tensor.dtype} {list(opening.tensor.dims)}, for proofs of {opening.security} bits",
        f"rows        {opening.account.opened} of {opening.account.allowance} opened; {_left(opening)}",
    ]
    return Result(opening.describe(), lines)


def opening_share(arguments: argparse.Namespace) -> Result:
    """`nexus-edge opening share`."""
    mine = OpeningFile(arguments.opening)
    given = mine.share(arguments.proofs, arguments.to).read()
    left = mine.read()
    data = {"kept": left.describe(), "given": given.describe(), "file": str(arguments.to)}
    size = show_size(len(given.to_bytes()))
    lines = [f"given     {arguments.to}  {size}, secret; {_left(given)}", f"kept      {arguments.opening}  {_left(left)}"]
    return Result(data, lines)


def _left(opening: Opening) -> str:
    proofs = opening.account.proofs_left
    return f"{opening.account.left} rows left, enough for {proofs} proof{'' if proofs == 1 else 's'}"
