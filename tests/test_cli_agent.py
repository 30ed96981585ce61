"""The commands that ask an agent, against a real admin socket in a thread of its own, and the agent's own start and stop."""

import asyncio
import base64
import contextlib
import hashlib
import json
import logging as standard_logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from nexus_edge import logging
from nexus_edge.api.models import CertificateView, FleetView, JobView
from nexus_edge.arguments import books as arguments_of_books
from nexus_edge.arguments.options import implementation
from nexus_edge.cli import ExitStatus, _parser, main
from nexus_edge.commands.views import status_lines
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import AgentUnavailable
from nexus_edge.identity import NodeKey, create_node_key, format_node_id, read_node_key
from nexus_edge.ledger import export
from nexus_edge.types import Bytes, MicroCredits
from tests.support.agent import HUT, JOB, NOON, RACK, SmallAgent, a_job, a_snapshot, serving

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The agent of a test logs where one logs; commands that configure logging do it for one test."""
    root = standard_logging.getLogger()
    handlers, level = root.handlers[:], root.level
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without settings."""
    for variable in [name for name in os.environ if name.startswith("NEXUS_EDGE_")]:
        monkeypatch.delenv(variable)
    for variable in ("STATE_DIRECTORY", "CONFIGURATION_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    for variable, folder in (("XDG_STATE_HOME", "state"), ("XDG_CONFIG_HOME", "config"), ("XDG_RUNTIME_DIR", "runtime")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    (tmp_path / "runtime").mkdir(mode=0o700)
    return tmp_path


@dataclass
class Outcome:
    status: int
    data: dict[str, Any]
    narration: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*words: str | Path) -> Outcome:
        status = main([*map(str, words), "--json"])
        captured = capsys.readouterr()
        (line,) = captured.out.splitlines()
        return Outcome(status, json.loads(line), captured.err)

    return run


@contextlib.contextmanager
def running(agent: SmallAgent, path: Path) -> Iterator[SmallAgent]:
    """An agent in another thread: commands have an event loop of their own."""
    up, down = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with serving(path, agent, interval_s=0.05):
            up.set()
            await down.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(10)
    try:
        yield agent
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def socket(home: Path) -> Path:
    return home / "runtime" / "nexus-edge" / "admin.sock"


@pytest.fixture
def agent(socket: Path) -> Iterator[SmallAgent]:
    with running(SmallAgent(), socket) as agent:
        yield agent


def save(path: Path) -> Path:
    np.save(path, np.zeros((1, 4), np.int8))
    return path


# What is shown


@pytest.mark.usefixtures("agent")
def test_status_is_the_snapshot(run: Callable[..., Outcome]) -> None:
    seen = run("status")
    assert seen.status == 0
    assert seen.data["node"]["state"] == "serving"
    assert seen.data["today"]["earned_ucr"] == 481_700
    assert seen.data["at"].endswith("Z")


@pytest.mark.parametrize("words", [("status",), ("jobs",), ("peers",), ("proofs",)])
def test_an_agent_is_found_by_its_folder_wherever_one_is(
    run: Callable[..., Outcome], home: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    (home / "attic").mkdir(mode=0o700)
    monkeypatch.chdir(home)
    with running(SmallAgent(), home / "attic" / "admin.sock"):
        assert run(*words, "--state", "attic").status == 0
        assert run(*words).status == ExitStatus.AGENT


def test_status_fits_one_screen() -> None:
    lines = status_lines(a_snapshot())
    assert lines[0] == "attic k3f97qt     ● serving   up 3 d 4 h   version 0.3.0"
    assert lines[1:4] == [
        "proved            ◆ 41 for peers today, 39 verified by them         +0.4817 cr",
        "verified          ✓ 17 for us today, ✗ 1 refused                    \N{MINUS SIGN}0.5560 cr",
        "                  in 130 ms, 0.4 % of the 28.9 s of re-running",
    ]
    assert "work              2 running, 1 waiting, next free in 0:01" in lines
    assert "8 cores            94 %     9.8/31.2 GiB" in lines
    assert "peers             10: 9 both ways, 1 one-way" in lines
    assert "ledger            ✓ unbroken #1\N{EN DASH}18205, net +2.2800 cr" in lines
    assert lines[-1].endswith("false proof from hut h8gdaaa, refused   → p-77d0")
    assert max(map(len, lines)) <= 80
    assert len(lines) < 24


def test_status_names_fleets_and_own_certificates() -> None:
    home = FleetView(key=RACK.id, name="home", members=2, line_ucr=MicroCredits(20_000_000), exposure_ucr=MicroCredits(1_200_000))
    away = FleetView(key=HUT.id, name=HUT.short_id, members=1)
    good = CertificateView(file="/a", key=RACK.id, name="home", until=NOON + timedelta(days=9))
    lost = CertificateView(file="/b.cert", problem="the group certificate cannot be read")
    lines = status_lines(a_snapshot(fleets=(home, away), certificates=(good, lost)))
    begin = next(number for number, line in enumerate(lines) if line.startswith("fleets"))
    assert [line[18:] for line in lines[begin : begin + 4]] == [
        "home: 2 members, 1.2000 cr drawn of 20.0000 cr",
        f"{HUT.short_id}: 1 member, 0.0000 cr drawn without a bound",
        "this node in home until 2025-10-12",
        "this node in /b.cert   ▲ the group certificate cannot be read",
    ]


def test_what_peers_call_themselves_cannot_steer_a_terminal() -> None:
    evil = a_snapshot().attention[0].model_copy(update={"text": "\x1b[2Jgone\nledger  ✗ broken"})
    assert not any("\x1b" in line or "\n" in line for line in status_lines(a_snapshot(attention=(evil,))))


@pytest.mark.parametrize("state", ["degraded", "draining", "alone", "starting"])
def test_status_of_an_agent_that_does_not_serve(run: Callable[..., Outcome], socket: Path, state: str) -> None:
    class Unwell(SmallAgent):
        async def snapshot(self) -> Any:
            node = a_snapshot().node.model_copy(update={"state": state, "why": "clock"})
            return a_snapshot(node=node)

    with running(Unwell(), socket):
        seen = run("status")
    assert seen.status == ExitStatus.AGENT
    assert seen.data["node"]["state"] == state
    assert "clock" in seen.data["error"]["why"]


@pytest.mark.usefixtures("home")
def test_no_agent_says_what_to_do(run: Callable[..., Outcome]) -> None:
    seen = run("status")
    assert seen.status == ExitStatus.AGENT
    assert "nexus-edge up" in seen.data["error"]["hint"]


@pytest.mark.parametrize("command", ["jobs", "peers", "proofs"])
@pytest.mark.usefixtures("agent")
def test_lists_are_typed(run: Callable[..., Outcome], command: str) -> None:
    seen = run(command)
    assert seen.status == 0
    assert [set(seen.data), len(seen.data[command])] == [{command}, 2]


@pytest.mark.usefixtures("agent")
def test_lists_are_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs"]) == main(["peers"]) == main(["proofs"]) == 0
    text = capsys.readouterr().out
    assert "j-4f2a" in text
    assert "▸ prove 67 %" in text
    assert "✗ refused lookup sum" in text
    assert f"for rack-2 {RACK.short_id}" in text
    assert f"●  rack-2 {RACK.short_id}" in text
    assert "212/212  +0.8400  home until 2025-11-02" in text
    assert f"by  {HUT.short_id}" in text
    assert "105 %" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.usefixtures("agent")
def test_a_terminal_without_unicode_gets_plain_text() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "nexus_edge", "status"], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert "* serving" in done.stdout
    assert "-0.5560 cr" in done.stdout
    assert "?" not in done.stdout


# Running a job


def test_a_job_is_run_and_its_answer_kept(run: Callable[..., Outcome], socket: Path, home: Path) -> None:
    (home / "m.tflite").write_bytes(b"model")
    steps = [
        a_job(direction="by", fraction=0.3),
        a_job(direction="by", state="verified", phase="", fraction=None, answered=True, verify_ms=4.8),
    ]
    with running(SmallAgent(steps=steps), socket) as agent:
        seen = run(
            "run", home / "m.tflite", save(home / "x.npy"), "--output", home / "y.npy", "--max-price", "0.05 cr", "--deadline", "30 s"
        )
    assert (seen.status, seen.data["verified"], seen.data["output"]) == (0, True, str(home / "y.npy"))
    assert (home / "y.npy").read_bytes() == b"\x93NUMPY of " + JOB.encode()
    (request,) = agent.requests
    assert request.model == hashlib.sha256((home / "m.tflite").read_bytes()).hexdigest()
    assert request.input == (home / "x.npy").read_bytes()
    assert (request.max_price_ucr, request.deadline_ms) == (50_000, 30_000)


def test_the_answer_of_an_earlier_job(run: Callable[..., Outcome], socket: Path, home: Path) -> None:
    done = a_job(direction="by", state="verified", phase="", fraction=None, answered=True, verify_ms=4.8)
    with running(SmallAgent(steps=[done]), socket):
        seen = run("answer", "j-4f2a", "--output", home / "y.npy")
        assert (seen.status, seen.data["verified"], seen.data["output"]) == (0, True, str(home / "y.npy"))
        assert (home / "y.npy").read_bytes() == b"\x93NUMPY of " + JOB.encode()
        assert run("answer", "j-4f2a", "--output", home / "missing" / "y.npy").status == ExitStatus.FILE
        assert run("answer", "j-0000").status == ExitStatus.USAGE


@pytest.mark.parametrize(("state", "why"), [("running", "no verified answer yet"), ("failed", "no verified answer")])
def test_a_job_without_an_answer_says_so(run: Callable[..., Outcome], socket: Path, home: Path, state: str, why: str) -> None:
    with running(SmallAgent(steps=[a_job(direction="by", state=state, phase="", fraction=None)]), socket):
        seen = run("answer", "j-4f2a", "--output", home / "y.npy")
    assert (seen.status, seen.data["verified"]) == (ExitStatus.JOB, False)
    assert why in seen.data["error"]["what"]
    assert not (home / "y.npy").exists()


def test_who_waits_for_a_silent_worker_is_told_once(socket: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = a_job(direction="by", state="running", phase="commit", fraction=0.2, reason="the worker does not answer: it is gone")
    again = a_job(direction="by", state="running", phase="commit", fraction=0.4)
    failed = a_job(direction="by", state="failed", phase="", fraction=None, reason="it is silent")
    with running(SmallAgent(steps=[silent, silent, again, failed]), socket):
        main(["run", "ab" * 32, str(save(home / "x.npy"))])
    assert capsys.readouterr().err.count("waiting: the worker does not answer: it is gone") == 1


def test_an_agent_that_goes_away_leaves_the_name_of_the_job(run: Callable[..., Outcome], socket: Path, home: Path) -> None:
    class Goes(SmallAgent):
        async def job(self, job: str) -> JobView:
            raise AgentUnavailable("the agent went away", job)

    with running(Goes(), socket):
        seen = run("run", "ab" * 32, save(home / "x.npy"))
    assert seen.status == ExitStatus.AGENT
    assert "nexus-edge answer j-4f2a" in seen.data["error"]["hint"]


def test_a_receipt_for_people(socket: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = a_job(
        direction="by", state="verified", answered=True, run_ms=96, prove_ms=3600, verify_ms=6, proof_bytes=Bytes(499_000), settled=True
    )

    class Answers(SmallAgent):
        async def output(self, _: str) -> bytes:
            return (home / "x.npy").read_bytes()

    with running(Answers(steps=[done]), socket):
        assert main(["run", "ab" * 32, str(save(home / "x.npy"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "✓ PROVED AND VERIFIED"
    assert f"proved     3.60 s   by rack-2 {RACK.short_id}: 487 KiB" in lines
    assert "verified   6.0 ms   here, without running the model" in lines
    assert "paid       0.0310 cr   signed by both" in lines
    assert "answer     int8 [1, 4]  0 0 0 0" in lines


@pytest.mark.parametrize("state", ["failed", "refused", "cancelled"])
def test_a_job_without_a_verified_answer_is_a_failure(run: Callable[..., Outcome], socket: Path, home: Path, state: str) -> None:
    ended = a_job(direction="by", state=state, phase="", fraction=None, reason="nobody has room", reasons=("barn: memory",))
    with running(SmallAgent(steps=[ended]), socket):
        seen = run("run", "ab" * 32, save(home / "x.npy"), "--output", home / "y.npy")
    assert (seen.status, seen.data["verified"], seen.data["reasons"]) == (ExitStatus.JOB, False, ["barn: memory"])
    assert "nobody has room" in seen.data["error"]["why"]
    assert not (home / "y.npy").exists()


@pytest.mark.parametrize("state", ["failed", "refused", "cancelled"])
def test_a_job_that_failed_begins_with_that_and_says_why(socket: Path, home: Path, capsys: pytest.CaptureFixture[str], state: str) -> None:
    ended = a_job(direction="by", state=state, phase="", fraction=None, reason="nobody has room", reasons=("barn: memory",))
    with running(SmallAgent(steps=[ended]), socket):
        status = main(["run", "ab" * 32, str(save(home / "x.npy"))])
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert (status, lines[:2]) == (ExitStatus.JOB, ["✗ NOT VERIFIED", ""])
    assert "not by     barn: memory" in lines
    assert not any(line.startswith(("answer", "paid", "verified")) for line in lines)
    assert "there is no verified answer" in told.err
    assert f"{state}: nobody has room" in told.err


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["no-such-model", "x.npy"], ExitStatus.FILE),
        (["ab" * 32, "missing.npy"], ExitStatus.FILE),
        (["ab" * 32, "text.npy"], ExitStatus.INPUT),
        (["ab" * 32, "x.npy", "--max-price", "5"], ExitStatus.USAGE),
        (["ab" * 32, "x.npy", "--deadline", "soon"], ExitStatus.USAGE),
        (["ab" * 32, "x.npy", "--max-price", "0 cr"], ExitStatus.USAGE),
    ],
)
def test_what_makes_no_sense_is_not_asked(
    run: Callable[..., Outcome], agent: SmallAgent, home: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], status: ExitStatus
) -> None:
    monkeypatch.chdir(home)
    save(home / "x.npy")
    (home / "text.npy").write_text("no array")
    assert run("run", *words).status == status
    assert agent.requests == []


def test_an_interrupted_run_withdraws_the_job(agent: SmallAgent, home: Path) -> None:
    save(home / "x.npy")
    command = [sys.executable, "-m", "nexus_edge", "run", "ab" * 32, str(home / "x.npy")]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # tests in the background of a shell are deaf to it
    )
    while not agent.requests:
        assert process.poll() is None
    threading.Event().wait(0.5)  # until it watches
    process.send_signal(signal.SIGINT)
    _, narration = process.communicate(timeout=20)
    assert process.returncode == ExitStatus.INTERRUPTED
    assert agent.asked == [f"cancel {JOB}"]
    assert b"j-4f2a: cancelled" in narration


def test_changes(run: Callable[..., Outcome], agent: SmallAgent) -> None:
    assert run("cancel", "j-4f2a").data["state"] == "cancelled"
    assert run("drain", "--stop").data["text"] == "draining"
    assert run("drain", "--resume").status == 0
    assert run("drain", "--resume", "--stop").status == ExitStatus.USAGE
    assert run("stop").data["audit"] == agent.audits[-1].id
    assert agent.asked == ["cancel j-4f2a", "drain True True", "drain False False"]


# Settings


def test_a_wrong_setting_is_named_with_its_line(run: Callable[..., Outcome], home: Path) -> None:
    file = home / "config" / "nexus-edge" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("# mine\n[market]\nmax_prise = '1 cr'\n")
    seen = run("config", "validate")
    assert seen.status == ExitStatus.CONFIG
    assert seen.data["error"]["what"].endswith("config.toml:3 market.max_prise is unknown; did you mean max_price?")


def test_settings_are_shown_with_their_origin(run: Callable[..., Outcome], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "mine.toml"
    file.write_text("[spend]\nday = '2 cr'\n")
    seen = run("config", "show", "--config", file, "--set", "mesh.mdns=off")
    assert seen.data["settings"]["spend.day"] == {"value": "2 cr", "default": "5 cr", "origin": "file", "where": f"{file}:2"}
    assert seen.data["settings"]["mesh.mdns"] == {"value": False, "default": True, "origin": "flag", "where": "--set"}
    assert main(["config", "show", "--origin", "--config", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f'day = "2 cr"  # {file}:2' in lines
    assert 'open = "10 cr"  # default' in lines


def test_what_is_shown_can_be_read_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ["config", "show", "--set", "mesh.peers=a:1,b:2", "--set", "market.rate=1500 ucr", "--set", "node.name=ätti"]
    assert main(first) == 0
    shown = capsys.readouterr().out
    (home / "shown.toml").write_text(shown)
    assert main(["config", "show", "--config", str(home / "shown.toml")]) == 0
    assert capsys.readouterr().out == shown


def test_the_schema_is_one(run: Callable[..., Outcome]) -> None:
    schema = run("config", "schema").data
    assert set(schema["properties"]) >= {"node", "mesh", "market", "spend"}
    assert schema["additionalProperties"] is False


# The agent itself


@dataclass
class Running:
    """An agent that `up` started. What it says goes to a file: a full pipe would stop it."""

    process: subprocess.Popen[bytes]
    state: Path
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def port(self) -> str:
        found = re.search(r"^ready +on port ([0-9]+)", self.said, re.MULTILINE)
        assert found is not None
        return found[1]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture
def up(home: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(name: str, *words: str) -> Running:
        command = [
            sys.executable,
            "-m",
            "nexus_edge",
            "up",
            "--state",
            str(home / name),
            "--name",
            name,
            "--listen",
            "127.0.0.1:0",
            "--no-mdns",
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([*command, *words], env=environment, stdout=log, stderr=log)
        running = Running(process, home / name, home / f"{name}.log")
        started.append(running)
        until = time.monotonic() + 30
        while "\nready" not in running.said:
            assert process.poll() is None, running.said
            assert time.monotonic() < until, running.said
            time.sleep(0.05)
        return running

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def test_two_agents_do_a_job_and_tell_no_secrets(run: Callable[..., Outcome], up: Callable[..., Running], home: Path) -> None:
    birch = up("birch", "--set", "log.level=debug")
    alder = up("alder", "--peer", f"127.0.0.1:{birch.port}", "--set", "log.level=debug")
    (image, _), *_ = demo_digits()
    (home / "m.tflite").write_bytes(demo_model())
    np.save(home / "x.npy", image)
    seen = [run("run", home / "m.tflite", home / "x.npy", "--output", home / "y.npy", "--socket", alder.state / "admin.sock")]
    assert (seen[0].status, seen[0].data["verified"]) == (0, True)
    assert np.load(home / "y.npy").argmax() == 5
    seen.append(run("answer", seen[0].data["short_id"], "--output", home / "again.npy", "--socket", alder.state / "admin.sock"))
    assert (home / "again.npy").read_bytes() == (home / "y.npy").read_bytes()
    for who in (alder, birch):
        seen += [run(command, "--socket", who.state / "admin.sock") for command in ("status", "jobs", "peers", "proofs")]
    today, (proof,) = seen[2].data["today"], seen[5].data["proofs"]
    assert proof["of_rerun"] == pytest.approx(today["verify_ms"] / today["rerun_ms"])
    seen += [run("ledger", "list", "--state", alder.state), run("credit", "list", "--state", birch.state)]
    assert (seen[-2].data["books"][0]["owed_ucr"], seen[-1].data["books"][0]["owed_ucr"]) == (
        -seen[0].data["price_ucr"],
        seen[0].data["price_ucr"],
    )
    seen.append(run("run", home / "m.tflite", home / "m.tflite", "--socket", alder.state / "admin.sock"))
    assert seen[0].data["prove_ms"] > 0
    assert seen[0].data["settled"] is True
    assert seen[0].data["peer"]["name"] == "birch"
    assert (alder.stop(), birch.stop()) == (0, 0)
    said = json.dumps([[one.data, one.narration] for one in seen]) + alder.said + birch.said
    seeds = [read_node_key(who.state / "node-key").seed() for who in (alder, birch)]
    secrets = [*seeds, image.tobytes()[:32], (home / "x.npy").read_bytes()[-32:]]
    for secret in secrets:
        for form in (secret.hex(), base64.b64encode(secret).decode()[:40], base64.b32encode(secret).decode()[:40], repr(secret)[2:-1]):
            assert form not in said
    assert (alder.state / "node-key").stat().st_mode & 0o777 == 0o600
    assert not (alder.state / "admin.sock").exists()


def test_the_books_are_changed_beside_a_running_agent(run: Callable[..., Outcome], up: Callable[..., Running]) -> None:
    birch, peer = up("birch"), format_node_id(NodeKey.generate().id)
    there = ("--state", birch.state)
    granted = run("credit", "grant", peer, "2", *there)
    assert (granted.status, granted.data["through"]) == (0, "the agent"), granted.narration
    assert run("credit", "expect", peer, "3", "--for", "invoice 17", *there).status == 0
    assert run("credit", "prepay", peer, "1", "--for", "invoice 18", *there).status == 0
    once_more = run("credit", "prepay", peer, "1", "--for", "invoice 18", *there)
    assert (once_more.status, once_more.data["again"]) == (0, True)
    (book,) = run("credit", "list", *there).data["books"]
    assert (book["granted_ucr"], book["owed_ucr"]) == (2_000_000, -1_000_000)
    unknown = run("credit", "grant", "birch", "2", *there)
    assert (unknown.status, "no node id" in unknown.narration) == (2, True)
    for refused in (run("credit", "write-off", peer, *there), run("credit", "refund", peer, "4f2a", *there)):
        assert refused.status not in (0, ExitStatus.INTERNAL)


def test_a_port_that_is_taken_is_named(up: Callable[..., Running], home: Path) -> None:
    birch = up("birch")
    command = [
        sys.executable,
        "-m",
        "nexus_edge",
        "up",
        "--state",
        str(home / "second"),
        "--no-mdns",
        "--listen",
        f"127.0.0.1:{birch.port}",
    ]
    second = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 78
    assert f"127.0.0.1:{birch.port}: another program listens there" in second.stderr
    assert "bug" not in second.stderr


def test_who_waits_is_told_why(run: Callable[..., Outcome], socket: Path, home: Path) -> None:
    (home / "m.tflite").write_bytes(b"model")
    waits = a_job(direction="by", state="waiting", phase="", fraction=None, reasons=("2unxeak price: it asks 5", "q3b4dmr busy: 1 s"))
    later = waits.model_copy(update={"reasons": ("2unxeak price: it asks 6", "q3b4dmr busy: 2 s")})
    # The answer to the submission takes the first of the steps, and the watch sees the others.
    with running(SmallAgent(steps=[waits, waits, later, a_job(direction="by", state="failed", phase="", fraction=None)]), socket):
        seen = run("run", home / "m.tflite", save(home / "x.npy"))
    assert seen.narration.count("waiting: 2unxeak price: it asks 5") == 1
    assert "it asks 6" not in seen.narration


def test_a_place_for_the_answer_is_there_before_anything_is_paid(run: Callable[..., Outcome], agent: SmallAgent, home: Path) -> None:
    (home / "m.tflite").write_bytes(b"model")
    for place in (home / "missing" / "y.npy", home):
        seen = run("run", home / "m.tflite", save(home / "x.npy"), "--output", place)
        assert (seen.status, agent.requests) == (6, [])


def test_an_agent_is_drained_and_stopped_by_command(run: Callable[..., Outcome], up: Callable[..., Running]) -> None:
    agent = up("one")
    socket = agent.state / "admin.sock"
    assert run("status", "--socket", socket).data["node"]["state"] == "alone"
    assert run("drain", "--socket", socket).status == 0
    assert run("status", "--socket", socket).data["node"]["state"] == "drained"
    second = run("up", "--state", agent.state, "--listen", "127.0.0.1:0", "--no-mdns")
    assert (second.status, second.data["error"]["kind"]) == (ExitStatus.LEDGER, "ledger")
    assert "nexus-edge status" in second.data["error"]["hint"]
    assert run("stop", "--socket", socket).status == 0
    assert agent.process.wait(20) == 0
    assert run("status", "--socket", socket).status == ExitStatus.AGENT


def test_flags_are_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []

    async def serve(settings: Any, **_: Any) -> None:
        served.append(settings)

    monkeypatch.setattr("nexus_edge.agent.serve", serve)
    words = [
        "--state",
        str(home / "n"),
        "--name",
        "attic",
        "--mesh",
        "m",
        "--listen",
        "127.0.0.1:0",
        "--peer",
        "a:1",
        "--peer",
        "b:2",
        "--no-mdns",
    ]
    assert main(["up", *words, "--set", "spend.day=2 cr", "--set", "node.name=loft"]) == 0
    (settings,) = served
    assert (settings.node.name, settings.mesh.name, settings.mesh.listen.port, settings.mesh.mdns) == ("attic", "m", 0, False)
    assert [peer.host for peer in settings.mesh.peers] == ["a", "b"]
    assert settings.spend.day == 2_000_000


def test_the_service_makes_no_key(run: Callable[..., Outcome], home: Path) -> None:
    seen = run("agent", "--state", home / "n")
    assert seen.status == ExitStatus.CONFIG
    assert "nexus-edge init" in seen.data["error"]["hint"]
    assert not (home / "n").exists()


def test_the_node_key_is_in_no_log(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    key = create_node_key(home / "n" / "node-key")

    async def serve(_: Any, **__: Any) -> None:
        log = structlog.get_logger("agent")
        log.error(
            "planted",
            text=f"the seed is {key.seed().hex()}",
            seed=key.seed(),
            raw=key.seed(),
            key=key,
            file=(home / "n" / "node-key").read_text(),
        )
        try:
            raise ValueError(key.seed().hex())
        except ValueError:
            log.exception("planted too")

    monkeypatch.setattr("nexus_edge.agent.serve", serve)
    assert main(["agent", "--state", str(home / "n"), "--json"]) == 0
    captured = capsys.readouterr()
    for form in (key.seed().hex(), key.seed().hex().upper(), repr(key.seed())[2:-1]):
        assert form not in captured.err + captured.out
    assert captured.err.count("planted") >= 2
    assert not any(key.seed().hex() in str(kept.record) for kept in logging.records.since())


# The command line


def commands_of(parser: Any) -> Iterator[str]:
    for action in parser._actions:
        for inner in (getattr(action, "choices", None) or {}).values() if isinstance(getattr(action, "choices", None), dict) else ():
            if function := inner.get_default("function"):
                yield function
            yield from commands_of(inner)


def test_formats_are_those_of_the_ledger() -> None:
    assert set(arguments_of_books.FORMATS) == set(export.FORMATS)


def test_every_command_has_code() -> None:
    functions = list(commands_of(_parser()))
    assert len(functions) > 25
    assert all(callable(implementation(function)) for function in functions)


@pytest.mark.parametrize("words", [["--version"], ["verify", "--key", "k", "--proof", "p"], ["status", "--help"]])
def test_light_commands_import_no_agent(words: list[str], tmp_path: Path) -> None:
    program = (
        "import sys; from nexus_edge.cli import main; main(sys.argv[1:]);"
        "print(*({'aiohttp', 'pydantic', 'structlog', 'zeroconf', 'cryptography'} & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr.splitlines()[-1] == ""
