"""Openings on the command line: where they are written, what they allow, and that they stay secret."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexus_edge.cli import ExitStatus, main
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.proofs import Opening, OpeningFile
from tests.support import models


class Session:
    """Commands in a folder with a model, its key and two inputs."""

    def __init__(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.place = place
        self.capsys = capsys
        self.narration = ""
        (place / "m.tflite").write_bytes(demo_model())
        for index, name in enumerate(("x.npy", "other.npy")):
            np.save(place / name, demo_digits()[index][0])
        self("model", "commit", "m.tflite", "--key", "vk")

    def __call__(self, *words: str, status: int = 0) -> dict[str, Any]:
        """Run a command with `--json` in the folder; it must end with that status."""
        before = Path.cwd()
        os.chdir(self.place)
        try:
            ended = main([*words, "--json"])
        finally:
            os.chdir(before)
        captured = self.capsys.readouterr()
        self.narration = captured.err
        assert ended == status, captured.err
        data: dict[str, Any] = json.loads(captured.out)
        return data

    def prove(self, *words: str, status: int = 0) -> dict[str, Any]:
        return self("prove", "--model", "m.tflite", "--input", "x.npy", "--proof", "p.bin", *words, status=status)

    def verify(self, *words: str, status: int = 0) -> dict[str, Any]:
        return self("verify", "--key", "vk", "--proof", "p.bin", *words, status=status)

    def files(self) -> set[str]:
        return {path.name for path in self.place.iterdir()} - {"m.tflite", "x.npy", "other.npy", "vk"}

    def opening(self, name: str) -> Opening:
        return OpeningFile(self.place / name).read()


@pytest.fixture
def session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Session:
    return Session(tmp_path, capsys)


def test_the_opening_lies_beside_the_proof(session: Session) -> None:
    proved = session.prove()
    assert proved["mode"] == "zk"
    assert session.files() == {"p.bin", "p.bin.opening"}
    assert stat.S_IMODE((session.place / "p.bin.opening").stat().st_mode) == 0o600
    (opening,) = proved["openings"]
    assert (opening["file"], opening["role"], opening["name"]) == ("p.bin.opening", "input", "image")
    assert opening["rows_left"] + opening["rows_opened"] == opening["rows_allowed"] == 512
    verified = session.verify("--input", "x.npy")
    assert (verified["verified"], verified["mode"]) == (True, "zk")
    assert session.verify("--input", "other.npy", status=ExitStatus.REJECTED)["reason"] == "input"
    session.prove()  # again: the proof and its opening are replaced
    assert session.verify("--input", "x.npy")["verified"] is True


def test_another_place_for_everything(session: Session) -> None:
    session.prove("--hide-output", "--output", "y.npy", "--input-opening", "in.op", "--output-opening", "out.op")
    assert session.files() == {"p.bin", "y.npy", "in.op", "out.op"}
    session.verify("--input", "x.npy", "--opening", "in.op", "--output", "y.npy", "--output-opening", "out.op")
    session.verify("--input", "x.npy", "--input-opening", "in.op")
    wrong = session.verify("--input", "x.npy", "--opening", "out.op", status=ExitStatus.OPENING)
    assert wrong["verified"] is False
    missing = session.verify("--input", "x.npy", status=ExitStatus.OPENING)
    assert (missing["verified"], missing["error"]["kind"]) == (False, "opening")
    assert "p.bin.opening does not exist" in session.narration


def test_a_hidden_output(session: Session) -> None:
    session.prove("--hide-output", "--output", "y.npy")
    assert session.files() == {"p.bin", "p.bin.opening", "p.bin.output.opening", "y.npy"}
    output = np.load(session.place / "y.npy")
    assert output.tobytes() not in (session.place / "p.bin").read_bytes()
    session.verify("--input", "x.npy", "--output", "y.npy")
    np.save(session.place / "y.npy", output ^ 1)
    assert session.verify("--output", "y.npy", status=ExitStatus.REJECTED)["reason"] == "output"


def test_an_input_that_is_committed_ahead(session: Session) -> None:
    (committed,) = session("commit", "--key", "vk", "--input", "x.npy", "--opening", "op.bin")["openings"]
    assert committed["proofs_left"] == 3
    for left in (2, 1):
        proved = session.prove("--input-opening", "op.bin")
        assert proved["openings"][0]["commitment"] == committed["commitment"]
        assert proved["openings"][0]["proofs_left"] == left
        session.verify("--input", "x.npy", "--opening", "op.bin")
    assert session("opening", "inspect", "op.bin") == session.opening("op.bin").describe()
    session("commit", "--key", "vk", "--input", "x.npy", "--opening", "op.bin", status=ExitStatus.FILE)
    assert session("commit", "--model", "m.tflite", "--input", "x.npy", "--opening", "2")["openings"][0]["security"] == 100
    strong = session("commit", "--model", "m.tflite", "--input", "x.npy", "--opening", "3", "--security", "128")
    assert strong["openings"][0]["proofs_left"] == 2
    session.prove("--input-opening", "3", "--security", "128")
    session.prove("--input-opening", "3", status=ExitStatus.OPENING)


def test_an_opening_that_is_not_there_yet_is_made_and_then_used(session: Session) -> None:
    first = session.prove("--input-opening", "op.bin")["openings"][0]
    second = session.prove("--input-opening", "op.bin")["openings"][0]
    assert first["commitment"] == second["commitment"]
    assert first["rows_opened"] < second["rows_opened"]


def test_nothing_is_left(session: Session) -> None:
    session("commit", "--key", "vk", "--input", "x.npy", "--opening", "op.bin")
    session("opening", "share", "op.bin", "--to", "one.bin", "--proofs", "1")
    session.prove("--input-opening", "one.bin")
    (session.place / "p.bin").unlink()
    refused = session.prove("--input-opening", "one.bin", status=ExitStatus.OPENING)
    assert refused["error"]["kind"] == "opening"
    assert "commit afresh" in refused["error"]["hint"]
    assert session.files() == {"op.bin", "one.bin"}
    session("opening", "share", "one.bin", "--to", "more.bin", "--proofs", "1", status=ExitStatus.OPENING)
    session("opening", "share", "op.bin", "--to", "one.bin", "--proofs", "1", status=ExitStatus.FILE)
    assert session.files() == {"op.bin", "one.bin"}


def test_shares(session: Session) -> None:
    session("commit", "--key", "vk", "--input", "x.npy", "--opening", "op.bin")
    shared = session("opening", "share", "op.bin", "--to", "worker.bin", "--proofs", "2")
    assert (shared["kept"]["proofs_left"], shared["given"]["proofs_left"]) == (1, 2)
    verifier = session("opening", "share", "op.bin", "--to", "verifier.bin", "--proofs", "0")
    assert verifier["given"]["rows_allowed"] == 0
    session.prove("--input-opening", "worker.bin")
    session.verify("--input", "x.npy", "--opening", "verifier.bin")
    session.prove("--input-opening", "verifier.bin", status=ExitStatus.OPENING)
    assert sum(session.opening(name).account.allowance for name in ("op.bin", "worker.bin", "verifier.bin")) == 512


def test_another_input_than_the_committed_one(session: Session) -> None:
    session("commit", "--key", "vk", "--input", "other.npy", "--opening", "op.bin")
    session.prove("--input-opening", "op.bin", status=ExitStatus.INPUT)
    assert session.files() == {"op.bin"}
    assert session.opening("op.bin").account.opened == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--mode", "plain", "--input-opening", "op.bin"),
        ("--clear-input", "--input-opening", "op.bin"),
        ("--output-opening", "op.bin"),
        ("--input-opening", "op.bin", "--input-opening", "op2.bin"),
        ("--mode", "fast"),
    ],
)
def test_options_that_do_not_go_together(session: Session, words: tuple[str, ...]) -> None:
    session.prove(*words, status=ExitStatus.USAGE)
    assert session.files() == set()


def test_no_proof_into_a_pipe_without_a_place_for_its_opening(session: Session) -> None:
    os.mkfifo(session.place / "p.bin")
    session.prove(status=ExitStatus.USAGE)
    assert "--input-opening" in session.narration
    assert session.files() == {"p.bin"}


def test_an_existing_output_opening_is_kept(session: Session) -> None:
    session.prove("--hide-output", "--output-opening", "out.op")
    before = (session.place / "out.op").read_bytes()
    (session.place / "p.bin").unlink()
    session.prove("--hide-output", "--output-opening", "out.op", status=ExitStatus.FILE)
    assert (session.place / "out.op").read_bytes() == before
    assert not (session.place / "p.bin").exists()


def test_an_opening_that_cannot_be_written_keeps_the_proof_back(session: Session) -> None:
    session.prove("--input-opening", "absent/op.bin", status=ExitStatus.FILE)
    assert session.files() == set()


@pytest.mark.parametrize("damage", [b"", b"NXEOPENG", bytes(1212)])
def test_a_damaged_opening(session: Session, damage: bytes) -> None:
    session.prove()
    (session.place / "p.bin.opening").write_bytes(damage)
    assert session.verify("--input", "x.npy", status=ExitStatus.OPENING)["verified"] is False
    session("opening", "inspect", "p.bin.opening", status=ExitStatus.OPENING)
    assert session.verify()["verified"] is True  # who compares nothing needs none


def test_plain_proofs(session: Session) -> None:
    session("model", "commit", "m.tflite", "--key", "plain.vk", "--mode", "plain")
    proved = session.prove("--mode", "plain", "--hide-output", "--output", "y.npy")
    assert (proved["mode"], proved["openings"]) == ("plain", [])
    assert session.files() == {"p.bin", "y.npy", "plain.vk"}
    plain = ("verify", "--key", "plain.vk", "--proof", "p.bin")
    assert session(*plain, "--input", "x.npy", "--output", "y.npy")["mode"] == "plain"
    session(*plain, "--input", "other.npy", status=ExitStatus.REJECTED)
    assert session.verify(status=ExitStatus.REJECTED)["reason"] == "statement"
    session.prove()
    assert session(*plain, status=ExitStatus.REJECTED)["reason"] == "statement"


def test_several_tensors(session: Session) -> None:
    (session.place / "m.tflite").write_bytes(models.two_inputs())
    first, second = np.arange(-3, 3, dtype=np.int8)[None], np.arange(6, 12, dtype=np.int8)[None]
    np.savez(session.place / "x.npy", allow_pickle=False, **{"second/value:0": second, "first": first})
    (session.place / "x.npy.npz").rename(session.place / "x.npy")
    session("model", "commit", "m.tflite", "--key", "vk")
    session.prove("--hide-output")
    assert session.files() == {"p.bin", "p.bin.0.opening", "p.bin.1.opening", "p.bin.output.opening"}
    session.verify("--input", "x.npy")
    session("commit", "--key", "vk", "--input", "x.npy", "--opening", "a", "--opening", "b")
    proved = session.prove("--input-opening", "a", "--input-opening", "b")
    assert [opening["name"] for opening in proved["openings"]] == ["first", "second/value:0"]
    session.verify("--input", "x.npy", "--opening", "a", "--opening", "b")
    session.verify("--input", "x.npy", "--opening", "b", "--opening", "a", status=ExitStatus.OPENING)
    session.verify("--input", "x.npy", "--opening", "a", status=ExitStatus.USAGE)


def test_seeds_are_never_printed(session: Session) -> None:
    """In clear, in hexadecimal, or as a Python literal: by any command, in JSON, for people, or in an error."""
    commands = [
        ["commit", "--key", "vk", "--input", "x.npy", "--opening", "op.bin"],
        ["opening", "share", "op.bin", "--to", "share.bin", "--proofs", "1"],
        ["prove", "--model", "m.tflite", "--input", "x.npy", "--proof", "p.bin", "--input-opening", "share.bin", "--hide-output"],
        ["prove", "--model", "m.tflite", "--input", "x.npy", "--proof", "p.bin", "--input-opening", "share.bin"],
        ["opening", "inspect", "op.bin"],
        ["verify", "--key", "vk", "--proof", "p.bin", "--input", "x.npy", "--opening", "op.bin"],
        ["verify", "--key", "vk", "--proof", "p.bin", "--input", "other.npy", "--opening", "op.bin"],
        ["prove", "--model", "m.tflite", "--input", "other.npy", "--proof", "p.bin", "--input-opening", "op.bin"],
    ]
    printed = b""
    for words in commands:
        for json_option in ([], ["--json"]):
            command = [sys.executable, "-m", "nexus_edge", *words, *json_option]
            environment = os.environ | {"NEXUS_EDGE_DEBUG": "1"}
            done = subprocess.run(command, cwd=session.place, env=environment, capture_output=True, check=False, timeout=60)
            printed += done.stdout + done.stderr
    assert b"Traceback" in printed
    assert session.opening("op.bin").commitment.hex().encode() in printed
    proof = (session.place / "p.bin").read_bytes()
    for name in ("op.bin", "share.bin", "p.bin.output.opening"):
        seed = session.opening(name).seed.expose()
        for shown in (seed, seed.hex().encode(), repr(seed)[2:-1].encode(), json.dumps(list(seed)).encode()):
            assert shown not in printed
            assert shown not in proof


def test_two_models_in_a_row(session: Session) -> None:
    """The session of docs/chaining.md."""
    for name, seed in (("first", 5), ("second", 6)):
        (session.place / f"{name}.tflite").write_bytes(models.chainable(seed))
        session("model", "commit", f"{name}.tflite", "--key", f"{name}.vk")
    np.save(session.place / "x.npy", np.arange(-6, 6, dtype=np.int8)[None])
    first = session("prove", "--model", "first.tflite", "--input", "x.npy", "--output", "m.npy", "--proof", "p1", "--hide-output")
    chained = ("--input-opening", "p1.output.opening")
    second = session("prove", "--model", "second.tflite", "--input", "m.npy", "--output", "y.npy", "--proof", "p2", *chained)
    of_output = next(opening for opening in first["openings"] if opening["role"] == "output")
    assert of_output["commitment"] == second["openings"][0]["commitment"]
    verified = [session("verify", "--key", f"{name}.vk", "--proof", proof) for name, proof in (("first", "p1"), ("second", "p2"))]
    assert verified[0]["outputs"][0]["commitment"] == verified[1]["inputs"][0]["commitment"] == of_output["commitment"]
    assert verified[1]["outputs"] == [{"name": "y", "commitment": None}]
    session("verify", "--key", "second.vk", "--proof", "p2", "--output", "y.npy")
    assert np.load(session.place / "m.npy").tobytes() not in (session.place / "p2").read_bytes()


@pytest.mark.parametrize("words", [("--proof", "own"), ("--output", "own"), ("--hide-output", "--output-opening", "own")])
def test_nothing_is_written_over_an_opening(session: Session, words: tuple[str, ...]) -> None:
    session("commit", "--model", "m.tflite", "--input", "x.npy", "--opening", "own")
    session.prove("--input-opening", "own", *words, status=ExitStatus.USAGE)
    assert session.opening("own").account.opened == 0
    assert session.files() == {"own"}
