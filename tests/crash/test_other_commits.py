"""Commits of rare jobs, of owners' deeds and of upkeep, killed at the same three points; and that no commit of the product is left out."""

import ast
import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from nexus_edge.api.client import AdminClient
from nexus_edge.api.models import DeedRequest, GrantRequest
from nexus_edge.errors import NexusEdgeError
from nexus_edge.identity import NodeKey, format_node_id, save_node_key
from nexus_edge.ledger.credit import CREDIT, DAY_MS
from nexus_edge.market import jobs, leases
from nexus_edge.types import MicroCredits, NodeId
from nexus_edge.wire.limits import RESULT_KEPT_MS
from tests.crash import test_commits
from tests.support.crashes import KILLED, killed_at
from tests.support.pairs import check_books, restarted, set_back, two, works_until_it_dies
from tests.support.processes import ROOT, SETTLED, Died, Process

FORMER = ("job:age", "lease:age")
"""Written at the first start on a ledger that did not note when its jobs ended."""


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A short folder: a socket's path has a hundred bytes."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def dies(node: Process, do: str, **more: Any) -> None:
    """It is told to do something, and does not survive it."""
    with pytest.raises(Died):
        node.ask(do, **more)


def starts_and_dies(node: Process, name: str, point: str) -> None:
    """At a commit that every start may make, at once or soon."""

    def live() -> None:
        restarted(node, (name, point, 1))
        node.answer(30)

    with pytest.raises(Died):
        live()


@killed_at("job:verified")
def test_the_requester_dies_when_it_has_verified_before_the_books_are_compared(tmp_path: Path, name: str, point: str) -> None:
    with two(tmp_path) as (alder, birch):
        set_back(alder, birch, tmp_path)
        birch.ask("refuse_entries", code="rate", count=3)
        alder.start((name, point, 1))
        alder.wait()
        restarted(alder)
        check_books(alder, birch)
        assert [job["phase"] for job in alder.ask("state")["jobs"]] == ["settled"]


@contextlib.contextmanager
def dead_when_refused(folder: Path, code: str, name: str, point: str) -> Iterator[tuple[Process, Process]]:
    """A requester that died when the worker refused its second payment, and lives again."""
    with two(folder) as (alder, birch):
        works_until_it_dies(alder)
        birch.ask("refuse_entries", code=code, count=2)
        alder.ask("crash", name=name, point=point)
        alder.ask("submit")
        alder.wait()
        restarted(alder)
        yield alder, birch


@killed_at("job:disputed")
def test_the_requester_dies_when_the_worker_says_that_nothing_is_owed(tmp_path: Path, name: str, point: str) -> None:
    with dead_when_refused(tmp_path, "bad-object", name, point) as (alder, birch):
        assert alder.ask("settle") == SETTLED
        ours, theirs = alder.ask("state"), birch.ask("state")
        assert ours["faults"] == theirs["faults"] == []
        assert [job["phase"] for job in ours["jobs"]] == ["settled", "disputed"]
        assert ours["books"][birch.id]["out"] == theirs["books"][alder.id]["in"] == ours["jobs"][0]["paid"]


@killed_at("refused")
def test_the_requester_dies_when_the_worker_misses_entries(tmp_path: Path, name: str, point: str) -> None:
    with dead_when_refused(tmp_path, "gap", name, point) as (alder, birch):
        check_books(alder, birch)
        assert [job["phase"] for job in alder.ask("state")["jobs"]] == ["settled", "settled"]


@killed_at("job:cancel-too-late")
def test_the_requester_dies_when_its_cancel_comes_too_late(tmp_path: Path, name: str, point: str) -> None:
    with two(tmp_path) as (alder, birch):
        birch.ask("misbehave", how="slow")
        (job,) = alder.ask("submit")["jobs"]
        assert alder.ask("phase", job=job, phase="accepted")["is"]
        alder.ask("crash", name="job:cancel-wanted", point="before-send")
        dies(alder, "cancel", job=job)
        assert birch.ask("lease_is", state="unpaid")["is"]
        alder.start((name, point, 1))
        alder.wait()
        restarted(alder)
        check_books(alder, birch)
        (ended,) = alder.ask("state")["jobs"]
        assert (ended["phase"], ended["paid"] > 0) == ("settled", True), ended


@killed_at("contradicted")
def test_the_worker_dies_when_it_sees_two_entries_under_one_number(tmp_path: Path, name: str, point: str) -> None:
    with two(tmp_path) as (alder, birch):
        works_until_it_dies(alder)
        before = birch.ask("state")["books"]
        birch.ask("crash", name=name, point=point)
        assert "conflict" not in alder.ask("fork", peer=birch.id)["code"]
        birch.wait()
        restarted(birch)
        assert [alder.ask("fork", peer=birch.id)["code"] for _ in range(2)] == ["conflict", "conflict"]
        after = birch.ask("state")
        assert (after["faults"], after["books"]) == ([], before)
        assert len(evidence(tmp_path / "birch", alder)) == 1, "one contradiction convicts: others are not kept"


def evidence(folder: Path, peer: Process) -> list[Any]:
    """What a worker keeps against a peer."""
    with sqlite3.connect(f"file:{folder / 'ledger' / 'ledger.sqlite'}?mode=ro", uri=True) as database:
        found = database.execute("SELECT * FROM events WHERE kind = 'contradicted' AND subject = ?", (bytes.fromhex(peer.id),)).fetchall()
    database.close()
    return found


@killed_at(("alder", "job:leave"), ("birch", "lease:leave"), arguments="side,name")
def test_a_node_dies_while_it_forgets_old_jobs(tmp_path: Path, side: str, name: str, point: str) -> None:
    with two(tmp_path) as (alder, birch):
        works_until_it_dies(alder)
        node = alder if side == "alder" else birch
        books = node.ask("state")["books"]
        node.ask("grow_old", ms=RESULT_KEPT_MS)
        node.ask("crash", name=name, point=point)
        dies(node, "sweep")
        restarted(node)
        node.ask("grow_old", ms=RESULT_KEPT_MS)
        node.ask("sweep")
        after = node.ask("state")
        assert (after["jobs"], after["leases"], after["faults"], after["books"]) == ([], [], [], books)
        restarted(node)
        (job,) = alder.ask("submit")["jobs"]
        assert alder.ask("settle") == SETTLED
        assert [one["phase"] for one in alder.ask("state")["jobs"] if one["id"] == job] == ["settled"]


@killed_at(*FORMER)
def test_a_node_dies_at_its_first_start_on_a_former_ledger(tmp_path: Path, name: str, point: str) -> None:
    with two(tmp_path) as (alder, birch):
        works_until_it_dies(alder)
        node = alder if name.startswith("job") else birch
        books = node.ask("state")["books"]
        node.kill()
        with sqlite3.connect(tmp_path / node.name / "ledger" / "ledger.sqlite") as database:
            database.execute("UPDATE live SET since = NULL")
        database.close()
        starts_and_dies(node, name, point)
        restarted(node)
        after = node.ask("state")
        assert (after["faults"], after["books"]) == ([], books)
        node.ask("grow_old", ms=RESULT_KEPT_MS)
        node.ask("sweep")
        after = node.ask("state")
        assert (after["jobs"], after["leases"]) == ([], [])


@killed_at("worker:begun", "age", "seal")
def test_a_node_dies_at_its_first_start(tmp_path: Path, name: str, point: str) -> None:
    with two(tmp_path) as (_, birch):
        cedar = Process(tmp_path, "cedar")
        cedar.peers = [birch]
        try:
            starts_and_dies(cedar, name, point)
            restarted(cedar)
            cedar.ask("submit")
            check_books(cedar, birch)
            assert [job["phase"] for job in cedar.ask("state")["jobs"]] == ["settled"]
        finally:
            cedar.close()


@killed_at("write-off")
def test_a_worker_dies_while_it_gives_up_what_is_owed(tmp_path: Path, name: str, point: str) -> None:
    """An old debt of a newcomer: given up once, whenever the node dies, and taken all the same if it is paid one day."""
    with two(tmp_path) as (alder, birch):
        alder.ask("crash", name="job:paying", point="before-flush")
        alder.ask("submit")
        alder.wait()
        price = birch.ask("state")["books"][alder.id]["reserved"]
        assert price > 0
        birch.ask("grow_old", ms=30 * DAY_MS)
        birch.ask("crash", name=name, point=point)
        birch.wait()
        restarted(birch)
        birch.ask("grow_old", ms=30 * DAY_MS)
        assert birch.ask("written_off", peer=alder.id, amount=price)["is"]
        restarted(alder)
        check_books(alder, birch)
        book = birch.ask("state")["books"][alder.id]
        assert (book["in"], book["written_off"]) == (price, price)


@killed_at("audit", "grant")
def test_an_agent_dies_while_its_owner_lends(tmp_path: Path, sockets: Path, name: str, point: str) -> None:
    birch = Process(tmp_path, "birch", socket=str(sockets / "birch"))
    alder = Process(tmp_path, "alder")
    request = GrantRequest(peer=format_node_id(NodeId(bytes.fromhex(alder.id))), amount_ucr=MicroCredits(5 * CREDIT))
    try:
        birch.start()
        birch.ask("crash", name=name, point=point)
        with pytest.raises(NexusEdgeError):
            administer(sockets / "birch", "grant", request)
        birch.wait()
        restarted(birch)
        granted = birch.ask("state")["books"].get(alder.id, {"granted": 0})["granted"]
        assert granted == (5 * CREDIT if name == "grant" and point != "before-flush" else 0)
        for _ in range(2):
            administer(sockets / "birch", "grant", request)
        after = birch.ask("state")
        assert (after["faults"], after["books"][alder.id]["granted"]) == ([], 5 * CREDIT)
    finally:
        alder.close()
        birch.close()


@killed_at(("alder", "deed"), ("alder", "acknowledged"), ("birch", "take"), arguments="side,name")
def test_a_node_dies_over_what_owners_settled(tmp_path: Path, sockets: Path, side: str, name: str, point: str) -> None:
    """A prepayment: the debtor signs it by an administrator's word, and no job is about it."""
    alder, birch = (Process(tmp_path, one, socket=str(sockets / one)) for one in ("alder", "birch"))
    try:
        birch.start()
        alder.peers = [birch]
        alder.start()
        works_until_it_dies(alder)
        paid = alder.ask("state")["books"][birch.id]["out"]
        settled(sockets / "birch", "expect", alder)
        dying = alder if side == "alder" else birch
        dying.ask("crash", name=name, point=point)
        if name == "deed":
            with pytest.raises(NexusEdgeError):
                settled(sockets / "alder", "prepay", birch)
        else:
            settled(sockets / "alder", "prepay", birch)
        dying.wait()
        restarted(dying)
        if (name, point) == ("deed", "before-flush"):
            settled(sockets / "alder", "prepay", birch)
        assert alder.ask("settle") == SETTLED
        ours, theirs = alder.ask("state"), birch.ask("state")
        assert ours["faults"] == theirs["faults"] == []
        assert ours["books"][birch.id]["out"] == theirs["books"][alder.id]["in"] == paid + CREDIT
    finally:
        alder.close()
        birch.close()


@killed_at("by hand")
def test_a_command_dies_that_changes_the_books_of_a_stopped_node(tmp_path: Path, name: str, point: str) -> None:
    save_node_key(NodeKey.from_seed(b"A" * 32), tmp_path / "node-key")
    peer = format_node_id(NodeKey.from_seed(b"B" * 32).id)
    where = ["--state", str(tmp_path), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *words, *where], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    def granted() -> list[int]:
        told = run("nexus_edge", "credit", "list")
        assert told.returncode == 0, told.stderr
        return [book["granted_ucr"] for book in json.loads(told.stdout)["books"]]

    assert run("tests.support.dying", name, point, "credit", "grant", peer, "5").returncode == -signal.SIGKILL
    assert granted() == ([] if point == "before-flush" else [5 * CREDIT])
    assert run("nexus_edge", "credit", "grant", peer, "5").returncode == 0
    assert granted() == [5 * CREDIT]
    assert run("nexus_edge", "ledger", "verify").returncode == 0


def test_every_commit_is_killed_at() -> None:
    """What the product calls its commits, read from its source: a new one needs a test here."""
    assert test_commits.__name__ in sys.modules
    named, made = set(), 0
    for file in (ROOT / "nexus_edge").rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and is_commit(call.func):
                if isinstance(call.args[0], ast.Constant):
                    named.add(call.args[0].value)
                elif isinstance(call.args[0], ast.JoinedStr):
                    made += 1
    assert made == 3, "of a machine: an event's kind, its age, and that it is left"
    named |= {f"{stream}:{kind}" for stream, kinds in (("job", jobs.EVENTS), ("lease", leases.EVENTS)) for kind in (*kinds, "age", "leave")}
    assert named == KILLED


def is_commit(called: ast.Attribute) -> bool:
    """`Ledger.transact`, or `Writer.write` beneath it."""
    return called.attr == "transact" or (called.attr == "write" and isinstance(called.value, ast.Name) and called.value.id == "writer")


def administer(socket: Path, do: str, request: Any) -> None:
    """As an administrator."""

    async def ask() -> None:
        async with AdminClient([socket]) as agent:
            await getattr(agent, do)(request)

    asyncio.run(ask())


def settled(socket: Path, what: Literal["expect", "prepay"], peer: Process) -> None:
    """What owners did between themselves is written down."""
    named = format_node_id(NodeId(bytes.fromhex(peer.id)))
    administer(socket, "deed", DeedRequest(what=what, peer=named, amount_ucr=MicroCredits(CREDIT), about="invoice 7"))
