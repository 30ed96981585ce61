"""Each commit of a job on each side, killed before the flush, after it, and before the next byte is sent: nothing is lost or paid twice.

`test_other_commits.py` has those that belong to no job, or to a rare one.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus_edge.identity import NodeKey
from tests.support.crashes import killed_at
from tests.support.fleets import OWNER, certificate_file
from tests.support.pairs import check_books, restarted, set_back, two, works_until_it_dies
from tests.support.processes import SETTLED, Died, Process


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Process]]:
    """A requester and a worker, who keep their ledgers over all tests here."""
    with two(tmp_path_factory.mktemp("pair")) as nodes:
        yield nodes


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


@killed_at("job:created", "job:offered", "job:accepted", "job:paying", "job:settled")
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


@killed_at("lease:leased", "lease:queued", "lease:delivered", "lease:settled")
def test_the_worker_dies(pair: tuple[Process, Process], name: str, point: str) -> None:
    alder, birch = pair
    restarted(birch, (name, point, 1))
    (job,) = alder.ask("submit")["jobs"]
    birch.wait()
    restarted(birch)
    check_books(alder, birch)
    (ended,) = [one for one in alder.ask("state")["jobs"] if one["id"] == job]
    assert ended["phase"] == "settled", ended


@killed_at(("alder", "job:cancel-wanted"), ("alder", "job:cancelled"), ("birch", "lease:cancelled"), arguments="side,name")
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


@killed_at(("job:declined", "decline", 1), ("job:attempt-failed", "fail", 1), ("job:failed", "decline", 99), arguments="name,how,count")
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


@killed_at("job:recommitted")
def test_the_requester_dies_when_it_commits_to_an_input_afresh(tmp_path: Path, name: str, point: str) -> None:
    """One worker declines and has seen the input, two fail: three proofs are as many as the first commitment hides the input in."""
    with two(tmp_path) as (alder, birch):
        birch.ask("misbehave", how="fail", count=2)
        birch.ask("misbehave", how="decline", count=1)
        alder.ask("crash", name=name, point=point)
        (job,) = alder.ask("submit")["jobs"]
        alder.wait()
        restarted(alder)
        check_books(alder, birch)
        (ended,) = alder.ask("state")["jobs"]
        assert (ended["id"], ended["phase"]) == (job, "settled"), ended
        assert ended["outcomes"] == ["declined", "worker-failed", "worker-failed", "verified"], ended


@killed_at(("lease:failed", "fail", 60_000), ("lease:expired", "hang", 2000), arguments="name,how,deadline_ms")
def test_the_worker_dies_when_it_does_not_do_it(tmp_path: Path, name: str, how: str, deadline_ms: int, point: str) -> None:
    with two(tmp_path) as (alder, birch):
        restarted(birch, (name, point, 1))
        birch.ask("misbehave", how=how)
        (job,) = alder.ask("submit", deadline_ms=deadline_ms)["jobs"]
        birch.wait()
        restarted(birch)
        check_books(alder, birch)
        (ended,) = alder.ask("state")["jobs"]
        assert ended["id"] == job
        assert ended["phase"] == "settled" or (how == "hang" and ended["reason"]), ended


def test_a_worker_that_was_down_at_the_deadline_does_not_begin_again(tmp_path: Path) -> None:
    """Its requester has given up: what came of it would be owed by nobody, and keep its credit."""
    with two(tmp_path) as (alder, birch):
        birch.ask("misbehave", how="hang")
        (job,) = alder.ask("submit", deadline_ms=2000)["jobs"]
        assert alder.ask("phase", job=job, phase="accepted")["is"]
        birch.kill()
        assert alder.ask("settle") == SETTLED
        birch.start()
        assert [lease["state"] for lease in birch.ask("state")["leases"]] == ["expired"]
        check_books(alder, birch)


@killed_at("job:delivered", "job:attempt-failed")
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


@killed_at("take")
def test_the_worker_dies_over_the_opening_of_a_chain(tmp_path: Path, name: str, point: str) -> None:
    """The one entry that pays nothing, and is the first of every chain."""
    with two(tmp_path) as (alder, birch):
        restarted(birch, (name, point, 1))
        alder.ask("submit")
        birch.wait()
        restarted(birch)
        check_books(alder, birch)
        assert [job["phase"] for job in alder.ask("state")["jobs"]] == ["settled"]


@killed_at("job:paying", "informed", "synchronised")
def test_a_requester_dies_while_it_compares_books_after_a_restore(tmp_path: Path, name: str, point: str) -> None:
    with two(tmp_path) as (alder, birch):
        works_until_it_dies(alder)
        set_back(alder, birch, tmp_path)
        alder.start((name, point, 1))
        alder.wait()
        restarted(alder)
        check_books(alder, birch)
        assert [one["phase"] for one in alder.ask("state")["jobs"]] == ["settled", "settled"]


@killed_at("group:joined")
def test_a_worker_that_dies_while_it_takes_a_certificate(tmp_path: Path, name: str, point: str) -> None:
    """Nothing is lent but to the fleet: the job shows that the certificate was remembered, or shown again."""
    seed = NodeKey.from_seed(b"alder".ljust(32, b"."))
    birch = Process(tmp_path, "birch", credit=[0, 0, 0, 0, 0], groups=[OWNER.seed().hex()])
    alder = Process(tmp_path, "alder", certificates=[str(certificate_file(tmp_path, seed.id))])
    birch.start((name, point, 1))
    alder.peers = [birch]
    alder.start()
    birch.wait()
    birch.start()
    (job,) = alder.ask("submit")["jobs"]
    check_books(alder, birch)
    assert [(one["id"], one["phase"]) for one in alder.ask("state")["jobs"]] == [(job, "settled")]
    alder.close()
    birch.close()
