"""`init` and `key`: what a person does with a node's key."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from nexus_edge.commands import identity
from nexus_edge.errors import FileError, IdentityError, UsageError
from nexus_edge.identity import create_node_key, format_node_id, read_node_key

PASSWORD = "a long enough password"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "state" / "nexus-edge" / "node-key"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    return path


def words(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"key": None, "password_file": None, **given})


def test_init_makes_one_key_and_keeps_it(state: Path) -> None:
    first, second = identity.init(words()), identity.init(words())
    assert (first.data["created"], second.data["created"]) == (True, False)
    assert first.data["id"] == second.data["id"] == format_node_id(read_node_key(state).id)
    assert first.data["file"] == str(state)
    assert identity.key_show(words()).data == {key: first.data[key] for key in ("id", "short", "file")}


def test_the_settings_say_where_the_key_is(state: Path, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(f'[node]\nkey = "{tmp_path / "elsewhere"}"\n')
    assert identity.init(words()).data["file"] == str(tmp_path / "elsewhere")
    assert not state.exists()


def test_init_does_not_replace_what_it_cannot_read(state: Path) -> None:
    identity.init(words())
    state.write_bytes(b"damaged")
    with pytest.raises(IdentityError):
        identity.init(words())
    assert state.read_bytes() == b"damaged"


def test_a_service_uses_the_key_it_is_handed(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = create_node_key(tmp_path / "credentials" / "node-key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    result = identity.init(words())
    assert (result.data["created"], result.data["id"]) == (False, format_node_id(handed.id))
    assert result.data["file"] == str(tmp_path / "credentials" / "node-key")
    assert not state.exists()


def test_export_and_import_move_a_node(state: Path, tmp_path: Path, password_file: Path) -> None:
    made = identity.init(words())
    exported = tmp_path / "exported"
    identity.key_export(words(to=exported, password_file=password_file))
    assert exported.stat().st_mode & 0o777 == 0o600
    moved = identity.key_import(words(exported=exported, key=tmp_path / "other" / "key", password_file=password_file))
    assert moved.data["id"] == made.data["id"]
    assert read_node_key(tmp_path / "other" / "key").seed() == read_node_key(state).seed()
    assert identity.key_show(words(key=tmp_path / "other" / "key")).data["id"] == made.data["id"]


def test_neither_is_written_over(state: Path, tmp_path: Path, password_file: Path) -> None:
    identity.init(words())
    before = state.read_bytes()
    exported = tmp_path / "exported"
    identity.key_export(words(to=exported, password_file=password_file))
    with pytest.raises(FileError, match="exists already"):
        identity.key_export(words(to=exported, password_file=password_file))
    with pytest.raises(FileError, match="exists already"):
        identity.key_import(words(exported=exported, password_file=password_file))
    assert state.read_bytes() == before


def test_nothing_secret_is_shown(state: Path, tmp_path: Path, password_file: Path) -> None:
    results = [
        identity.init(words()),
        identity.key_show(words()),
        identity.key_export(words(to=tmp_path / "exported", password_file=password_file)),
    ]
    shown = json.dumps([[result.data, result.lines] for result in results])
    assert read_node_key(state).seed().hex() not in shown
    assert PASSWORD not in shown


def test_without_a_terminal_a_password_needs_a_file(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity.init(words())
    with (tmp_path / "password").open("w+") as empty:
        monkeypatch.setattr("sys.stdin", empty)
        with pytest.raises(UsageError, match="--password-file"):
            identity.key_export(words(to=tmp_path / "exported"))
    assert state.exists()
    assert not (tmp_path / "exported").exists()


def test_a_password_that_is_no_text(state: Path, tmp_path: Path) -> None:
    identity.init(words())
    assert state.exists()
    (tmp_path / "password").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="UTF-8"):
        identity.key_export(words(to=tmp_path / "exported", password_file=tmp_path / "password"))
