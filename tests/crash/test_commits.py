"""Each commit of each side, killed before the flush, after it, and before the next byte is sent: nothing is lost, and nothing is paid twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus_edge.identity import NodeKey
from tests.support.fleets import OWNER, certificate_file
from tests.support.processes import Died, Process

POINTS = ("before-flush", "after-flush", "before-send")
REQUESTER = ("job:created", "job:offered", "job:accepted", "job:paying", "job:settled")
WORKER = ("lease:leased", "lease:queued", "lease:delivered", "lease:settled")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Process]]:
    """A requester and a worker, who keep their ledgers over all tests here."""
    folder = tmp_path_factory.mktemp("pair")
    alder, birch = Process(folder, "alder"), Process(folder, "birch")
    birch.start()
    alder.peers = [birch]
    alder.start()
    yield alder, birch
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


def check_books(alder: Process, birch: Process) -> None:
    """All has ended, both books say the same, and what was paid is what the jobs say."""
    assert alder.ask("settle", within_s=150) == {"open": 0, "debts": 0}
    birch.ask("settle", within_s=150)
    ours, theirs = alder.ask("state"), birch.ask("state")
    assert ours["faults"] == theirs["faults"] == []
    paid = sum(job["paid"] for job in ours["jobs"])
    book, mirror = ours["books"].get(birch.id, {"out": 0, "reserved": 0}), theirs["books"].get(alder.id, {"in": 0, "reserved": 0})
    assert book["out"] == mirror["in"] == paid
    assert book["reserved"] == mirror["reserved"] == 0, (ours["jobs"], theirs["leases"])
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
