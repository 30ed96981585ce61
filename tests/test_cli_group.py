"""`nexus-edge group`: what an owner does with the key of a fleet."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nexus_edge.cli import main
from nexus_edge.clock import now_ms
from nexus_edge.identity import NodeKey, format_node_id, read_node_key
from nexus_edge.wire.certificates import read_certificate, write_certificate
from tests.support.fleets import DAY_MS, certificate

NODE = format_node_id(NodeKey.from_seed(b"n" * 32).id)
PASSWORD = "a long enough password"

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    def run(*words: object) -> tuple[int, dict[str, Any]]:
        status = main([*map(str, words), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def key(run: Run, tmp_path: Path) -> Path:
    assert run("group", "init", tmp_path / "owner.key")[0] == 0
    return tmp_path / "owner.key"


def test_a_key_is_made_once_and_for_its_owner_alone(run: Run, key: Path) -> None:
    owner = read_node_key(key)
    assert key.stat().st_mode & 0o777 == 0o600
    assert run("group", "init", key)[0] == 6
    assert read_node_key(key).id == owner.id
    assert run("group", "show", key)[1]["key"] == format_node_id(owner.id)


def test_a_member_is_named_and_renewed(run: Run, key: Path, tmp_path: Path) -> None:
    out = tmp_path / "member.cert"
    status, said = run("group", "sign", "--key", key, NODE, "--days", 7, "--out", out)
    first = read_certificate(out.read_bytes())
    assert (status, said["node"], said["until"] - said["from"], said["file"]) == (0, NODE, 7 * DAY_MS, str(out))
    assert (first.issuer, first.object.exp) == (read_node_key(key).id, said["until"])
    assert abs(first.object.at - now_ms()) < 60_000
    assert run("group", "show", out)[1] == {**said, "file": str(out)}
    assert run("group", "sign", "--key", key, NODE, "--out", out)[0] == 0
    renewed = read_certificate(out.read_bytes()).object
    assert renewed.exp - renewed.at == 30 * DAY_MS
    assert renewed.seq > first.object.seq


def test_a_key_under_a_password_signs_too(run: Run, key: Path, tmp_path: Path) -> None:
    exported, password = tmp_path / "owner.enc", tmp_path / "password"
    password.write_text(PASSWORD)
    assert run("key", "export", "--key", key, "--to", exported, "--password-file", password)[0] == 0
    out = tmp_path / "member.cert"
    assert run("group", "sign", "--key", exported, NODE, "--out", out, "--password-file", password)[0] == 0
    assert read_certificate(out.read_bytes()).issuer == read_node_key(key).id
    password.write_text("another password")
    assert run("group", "sign", "--key", exported, NODE, "--out", out, "--password-file", password)[0] == 78


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--days", 31, NODE], 2),
        (["--days", 0, NODE], 2),
        ([NODE[:-1]], 78),
        ([NODE[:-1] + "0"], 78),
    ],
)
def test_what_makes_no_sense_writes_nothing(run: Run, key: Path, tmp_path: Path, words: list[object], status: int) -> None:
    found, said = run("group", "sign", "--key", key, *words, "--out", tmp_path / "out")
    assert (found, said["exit_status"]) == (status, status)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_keys(run: Run, key: Path, tmp_path: Path) -> None:
    assert run("group", "sign", "--key", tmp_path / "none", NODE, "--out", tmp_path / "out")[0] == 6
    (tmp_path / "empty").touch(0o600)
    status, said = run("group", "sign", "--key", tmp_path / "empty", NODE, "--out", tmp_path / "out")
    assert (status, said["error"]["hint"]) == (78, "`nexus-edge group init` makes one")
    key.chmod(0o644)
    assert run("group", "sign", "--key", key, NODE, "--out", tmp_path / "out")[0] == 78
    assert run("group", "show", tmp_path / "empty")[0] == 78


def test_an_ended_certificate_is_shown_as_one(run: Run, tmp_path: Path) -> None:
    ended = certificate(NodeKey.from_seed(b"n" * 32).id, days=1, ago_ms=2 * DAY_MS)
    (tmp_path / "old").write_bytes(write_certificate(ended))
    status, said = run("group", "show", tmp_path / "old")
    assert (status, said["until"], said["error"]["what"]) == (78, ended.object.exp, "the certificate has ended")


def test_nothing_secret_is_said(key: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    secret = read_node_key(key).seed().hex()
    for words in (["show", key], ["sign", "--key", key, NODE, "--out", tmp_path / "out"]):
        main(["group", *map(str, words)])
        said = capsys.readouterr()
        assert secret not in said.out + said.err
    assert secret not in (tmp_path / "out").read_text()
