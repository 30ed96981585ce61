"""A requester and a worker in processes, which are killed and started again, and what has to hold of them then."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nexus_edge.clock import now_ms
from nexus_edge.ledger import restore_backup
from nexus_edge.types import NodeId
from tests.support.processes import SETTLED, Process


@contextlib.contextmanager
def two(folder: Path, **options: Any) -> Iterator[tuple[Process, Process]]:
    """A requester and a worker of one test."""
    alder, birch = Process(folder, "alder", **options), Process(folder, "birch", **options)
    birch.start()
    alder.peers = [birch]
    alder.start()
    try:
        yield alder, birch
    finally:
        alder.close()
        birch.close()


def restarted(node: Process, crash: tuple[str, str, int] | None = None) -> None:
    if node.is_alive:
        node.kill()
    node.start(crash)


def go_back(node: Process, folder: Path) -> None:
    """To the backup `copy` in the folder of both."""
    restore_backup(folder / "copy", folder / node.name / "ledger" / "ledger.sqlite", NodeId(bytes.fromhex(node.id)), now_ms())


def set_back(alder: Process, birch: Process, folder: Path) -> None:
    """The requester loses what happened since a worker accepted a job, and is not started yet; the worker has done it by then, or soon."""
    birch.ask("misbehave", how="hang")
    (job,) = alder.ask("submit")["jobs"]
    assert alder.ask("phase", job=job, phase="accepted")["is"]
    alder.ask("backup", path=str(folder / "copy"))
    alder.kill()
    go_back(alder, folder)
    restarted(birch)


def works_until_it_dies(node: Process) -> None:
    node.ask("submit")
    node.ask("settle")
    node.ask("state")


def check_books(alder: Process, birch: Process, *, late: bool = False) -> None:
    """All has ended, both books say the same, and what was paid is what the jobs say.

    `late`: the worker may have delivered what its requester refused. It keeps that in mind, and nobody pays it.
    """
    assert alder.ask("settle", within_s=150) == SETTLED
    birch.ask("settle", within_s=150)
    ours, theirs = alder.ask("state"), birch.ask("state")
    assert ours["faults"] == theirs["faults"] == []
    paid = sum(job["paid"] for job in ours["jobs"])
    book, mirror = ours["books"].get(birch.id, {"out": 0, "reserved": 0}), theirs["books"].get(alder.id, {"in": 0, "reserved": 0})
    assert book["out"] == mirror["in"] == paid
    unpaid = sum(lease["price"] for lease in theirs["leases"] if lease["state"] == "unpaid")
    assert book["reserved"] == 0, (ours["jobs"], theirs["leases"])
    assert mirror["reserved"] == (unpaid if late else 0), (ours["jobs"], theirs["leases"])
    assert all(job["phase"] in ("settled", "cancelled") or job["reason"] for job in ours["jobs"]), ours["jobs"]
    assert sum(lease["price"] for lease in theirs["leases"] if lease["state"] == "settled") <= paid
