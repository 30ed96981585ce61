"""Each commit of each side, killed before the flush, after it, and before the next byte is sent: nothing is lost, and nothing is paid twice."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus_edge.clock import now_ms
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import restore_backup
from nexus_edge.types import NodeId
from tests.support.fleets import OWNER, certificate_file
from tests.support.processes import Died, Process

POINTS = ("before-flush", "after-flush", "before-send")
REQUESTER = ("job:created", "job:offered", "job:accepted", "job:paying", "job:settled")
WORKER = ("lease:leased", "lease:queued", "lease:delivered", "lease:settled")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Process]]:
    """A requester and a worker, who keep their ledgers over all tests here."""
    with two(tmp_path_factory.mktemp("pair")) as nodes:
        yield nodes


@contextlib.contextmanager
def two(folder: Path) -> Iterator[tuple[Process, Process]]:
    """A requester and a worker of one test."""
    alder, birch = Process(folder, "alder"), Process(folder, "birch")
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


def works_until_it_dies(node: Process) -> None:
    node.ask("submit")
    node.ask("settle")
    node.ask("state")


def cancelled_until_it_dies(alder: Process, dying: Process) -> str:
    """Cancel a job that is still waiting behind others; one that was delivered before the worker heard of it does not count."""
    for _ in range(10):
        jobs: list[str] = alder.ask("submit", count=12)["jobs"]
        alder.ask("phase", job=jobs[-1], phase="accepted")
        alder.tell("cancel", job=jobs[-1])
        try:
            dying.wait(5)
        except TimeoutError:
            alder.answer(90)
            continue
        return jobs[-1]
    raise AssertionError("no cancel was in time")


def check_books(alder: Process, birch: Process, *, late: bool = False) -> None:
    """All has ended, both books say the same, and what was paid is what the jobs say.

    `late`: the worker may have delivered what its requester had given up, or refused. It keeps that in mind, and nobody pays it.
    """
    assert alder.ask("settle", within_s=150) == {"open": 0, "debts": 0}
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


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", REQUESTER)
def test_the_requester_dies(pair: tuple[Process, Process], name: str, point: str) -> None:
    alder, birch = pair
    restarted(alder, (name, point, 1))
    before = len(alder.ask("state")["jobs"])
    with pytest.raises(Died):
        works_until_it_dies(alder)
    restarted(alder)
    check_books(alder, birch)
    after = alder.ask("state")["jobs"][before:]
    is_written = (name, point) != ("job:created", "before-flush")
    assert [job["phase"] for job in after] == ["settled"] * is_written, after


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", WORKER)
def test_the_worker_dies(pair: tuple[Process, Process], name: str, point: str) -> None:
    alder, birch = pair
    restarted(birch, (name, point, 1))
    (job,) = alder.ask("submit")["jobs"]
    birch.wait()
    restarted(birch)
    check_books(alder, birch)
    (ended,) = [one for one in alder.ask("state")["jobs"] if one["id"] == job]
    assert ended["phase"] == "settled", ended


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(("side", "name"), [("alder", "job:cancel-wanted"), ("alder", "job:cancelled"), ("birch", "lease:cancelled")])
def test_a_cancelled_job(pair: tuple[Process, Process], side: str, name: str, point: str) -> None:
    alder, birch = pair
    dying = alder if side == "alder" else birch
    restarted(dying, (name, point, 1))
    job = cancelled_until_it_dies(alder, dying)
    restarted(dying)
    if dying is birch:
        alder.answer(90)
    check_books(alder, birch)
    (ended,) = [one for one in alder.ask("state")["jobs"] if one["id"] == job]
    assert ended["phase"] in ("cancelled", "settled"), ended


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(
    ("name", "how", "count"), [("job:declined", "decline", 1), ("job:attempt-failed", "fail", 1), ("job:failed", "decline", 99)]
)
def test_the_requester_dies_when_a_worker_does_not_do_it(
    pair: tuple[Process, Process], name: str, how: str, count: int, point: str
) -> None:
    alder, birch = pair
    birch.ask("misbehave", how=how, count=count)
    restarted(alder, (name, point, 1))
    before = len(alder.ask("state")["jobs"])
    alder.tell("submit", deadline_ms=2500 if name == "job:failed" else 60_000)
    alder.wait()
    restarted(alder)
    check_books(alder, birch)
    (ended,) = alder.ask("state")["jobs"][before:]
    assert ended["phase"] == ("failed" if name == "job:failed" else "settled"), ended
    restarted(birch)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(("name", "how", "deadline_ms"), [("lease:failed", "fail", 60_000), ("lease:expired", "hang", 2000)])
def test_the_worker_dies_when_it_does_not_do_it(tmp_path: Path, name: str, how: str, deadline_ms: int, point: str) -> None:
    with two(tmp_path) as (alder, birch):
        restarted(birch, (name, point, 1))
        birch.ask("misbehave", how=how)
        (job,) = alder.ask("submit", deadline_ms=deadline_ms)["jobs"]
        birch.wait()
        restarted(birch)
        check_books(alder, birch, late=how == "hang")
        (ended,) = alder.ask("state")["jobs"]
        assert ended["id"] == job
        assert ended["phase"] == "settled" or (how == "hang" and ended["reason"]), ended


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ["job:delivered", "job:attempt-failed"])
def test_the_requester_dies_over_a_false_proof(tmp_path: Path, name: str, point: str) -> None:
    with two(tmp_path) as (alder, birch):
        birch.ask("misbehave", how="lie", count=99)
        restarted(alder, (name, point, 1))
        alder.ask("submit", deadline_ms=3000)
        alder.wait()
        restarted(alder)
        check_books(alder, birch, late=True)
        (ended,) = alder.ask("state")["jobs"]
        assert (ended["phase"], ended["paid"]) == ("failed", 0), ended
        assert "invalid-proof" in ended["outcomes"], ended


@pytest.mark.parametrize("point", POINTS)
def test_the_worker_dies_over_the_opening_of_a_chain(tmp_path: Path, point: str) -> None:
    """The one entry that pays nothing, and is the first of every chain."""
    with two(tmp_path) as (alder, birch):
        restarted(birch, ("take", point, 1))
        alder.ask("submit")
        birch.wait()
        restarted(birch)
        check_books(alder, birch)
        assert [job["phase"] for job in alder.ask("state")["jobs"]] == ["settled"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ["job:paying", "synchronised"])
def test_a_requester_dies_while_it_compares_books_after_a_restore(tmp_path: Path, name: str, point: str) -> None:
    with two(tmp_path) as (alder, birch):
        works_until_it_dies(alder)
        birch.ask("misbehave", how="hang")
        (job,) = alder.ask("submit")["jobs"]
        assert alder.ask("phase", job=job, phase="accepted")["is"]
        alder.ask("backup", path=str(tmp_path / "copy"))
        alder.kill()
        restore_backup(tmp_path / "copy", tmp_path / "alder" / "ledger" / "ledger.sqlite", NodeId(bytes.fromhex(alder.id)), now_ms())
        restarted(birch)
        alder.start((name, point, 1))
        alder.wait()
        restarted(alder)
        check_books(alder, birch)
        assert [one["phase"] for one in alder.ask("state")["jobs"]] == ["settled", "settled"]


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_dies_while_it_takes_a_certificate(tmp_path: Path, point: str) -> None:
    """Nothing is lent but to the fleet: the job shows that the certificate was remembered, or shown again."""
    seed = NodeKey.from_seed(b"alder".ljust(32, b"."))
    birch = Process(tmp_path, "birch", credit=[0, 0, 0, 0, 0], groups=[OWNER.seed().hex()])
    alder = Process(tmp_path, "alder", certificates=[str(certificate_file(tmp_path, seed.id))])
    birch.start(("group:joined", point, 1))
    alder.peers = [birch]
    alder.start()
    birch.wait()
    birch.start()
    (job,) = alder.ask("submit")["jobs"]
    check_books(alder, birch)
    assert [(one["id"], one["phase"]) for one in alder.ask("state")["jobs"]] == [(job, "settled")]
    alder.close()
    birch.close()
