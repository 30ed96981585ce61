"""The books as CSV for spreadsheets, and as JSON lines with the signed bytes, for whoever checks signatures alone."""

import csv
import errno
import io
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from nexus_edge.errors import FileError
from nexus_edge.files import new_file
from nexus_edge.identity import format_node_id
from nexus_edge.ledger.errors import DiskFull
from nexus_edge.ledger.history import Movement
from nexus_edge.ledger.reading import Reader
from nexus_edge.types import Digest
from nexus_edge.wire.objects import Ack

COLUMNS: Final = ("n", "at", "kind", "peer", "job", "amount_ucr", "balance_ucr", "signatures", "entry")
PAGE: Final = 1000
"""Lines read at a time: an export needs no more memory for a long book than for a short one."""


def as_csv(reader: Reader) -> Iterator[str]:
    """A head line, then a line for each movement, oldest first. Times are UTC, amounts micro-credits."""
    yield _csv_line(COLUMNS)
    for movement in _all(reader):
        yield _csv_line(tuple("" if value is None else value for value in _fields(movement).values()))


def as_json_lines(reader: Reader) -> Iterator[str]:
    """An object for each movement; with `signed` and `ack`, hexadecimal, where it is an entry."""
    for movement in _all(reader):
        fields: dict[str, Any] = _fields(movement)
        if movement.entry is not None:
            ack = reader.ack_of(movement.entry)
            fields["signed"] = reader.object(movement.entry).to_bytes().hex()
            fields["ack"] = None if ack is None else reader.object(ack).of(Ack).to_bytes().hex()
        yield json.dumps(fields)


FORMATS: Final[dict[str, Callable[[Reader], Iterable[str]]]] = {"csv": as_csv, "jsonl": as_json_lines}


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines to a new file, which is complete when it has its name; returns how many. Raises `FileError` and `DiskFull`."""
    if path.exists():
        raise FileError("the export cannot be written", f"{path} exists already", "name another file")
    count = 0
    try:
        with new_file(path) as part, part.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
                count += 1
    except OSError as failed:
        if failed.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("the export cannot be written", f"{path}: {failed.strerror}", "make space") from failed
        raise FileError("the export cannot be written", f"{path}: {failed.strerror or failed}") from failed
    return count


def _all(reader: Reader) -> Iterator[Movement]:
    after = 0
    while page := reader.movements(PAGE, after=after, oldest_first=True):
        yield from page
        after = page[-1].n


def _fields(movement: Movement) -> dict[str, Any]:
    return {
        "n": movement.n,
        "at": datetime.fromtimestamp(movement.at / 1000, UTC).isoformat(timespec="milliseconds"),
        "kind": movement.kind,
        "peer": format_node_id(movement.peer),
        "job": None if movement.job is None else movement.job.hex(),
        "amount_ucr": movement.amount,
        "balance_ucr": movement.balance,
        "signatures": movement.signatures,
        "entry": _hex(movement.entry),
    }


def _hex(digest: Digest | None) -> str | None:
    return None if digest is None else digest.hex()


def _csv_line(values: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
