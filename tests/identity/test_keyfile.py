"""Key files: private, whole, never overwritten, and never mistaken for a missing one."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nexus_edge.errors import FileError, IdentityError
from nexus_edge.identity import (
    NodeKey,
    NodeKeyMissing,
    create_node_key,
    credential,
    load_node_key,
    read_node_key,
    save_node_key,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "deep" / "node-key"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def test_a_key_survives_its_file_and_is_for_its_owner_alone(path: Path) -> None:
    key = create_node_key(path)
    assert read_node_key(path).seed() == load_node_key(path).seed() == key.seed()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == path.parent.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["node-key"]


def test_it_is_synced_before_it_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    really = os.fsync

    def fsync(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    create_node_key(path)
    # The folders that were made, in the folders that hold them; the content under its first name; then its last name.
    assert synced[:2] == [str(path.parents[2]), str(path.parents[1])]
    assert synced[2].startswith(str(path.parent / ".node-key."))
    assert synced[3] == str(path.parent)


def test_a_key_is_never_written_over(path: Path) -> None:
    key = create_node_key(path)
    with pytest.raises(FileError, match="exists already"):
        create_node_key(path)
    with pytest.raises(FileError, match="exists already"):
        save_node_key(NodeKey.generate(), path)
    assert read_node_key(path).id == key.id


def test_of_many_at_once_one_makes_the_key(path: Path) -> None:
    made: list[NodeKey] = []
    refused: list[FileError] = []

    def make() -> None:
        try:
            made.append(create_node_key(path))
        except FileError as exists:
            refused.append(exists)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 7)
    assert read_node_key(path).id == made[0].id


def test_missing_is_told_from_damaged(path: Path) -> None:
    with pytest.raises(NodeKeyMissing, match="init"):
        load_node_key(path)
    path.parent.mkdir(parents=True)
    path.touch(0o600)  # what a process leaves that is killed before it writes
    with pytest.raises(NodeKeyMissing):
        load_node_key(path)
    assert create_node_key(path).id == load_node_key(path).id


Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:40],
        lambda data: data + b"\n",
        lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
        lambda data: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:],
        lambda data: data.replace(b"key 1", b"key 2"),
        lambda data: bytes(len(data)),
        lambda _: b"\xff" * 95,
        lambda data: data[:22] + b"zz" + data[24:],
        lambda _: b"-----BEGIN PRIVATE KEY-----\n",
        lambda data: data * 100,
    ],
)
def test_a_damaged_file_is_no_other_key(path: Path, damage: Damage) -> None:
    create_node_key(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IdentityError) as refused:
        load_node_key(path)
    assert not isinstance(refused.value, NodeKeyMissing)


def test_every_digit_of_the_file_is_checked(path: Path) -> None:
    create_node_key(path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(IdentityError):
            read_node_key(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o666])
def test_a_file_that_others_may_read_is_refused(path: Path, mode: int) -> None:
    create_node_key(path)
    path.chmod(mode)
    with pytest.raises(IdentityError, match=f"mode {mode:04o}") as refused:
        load_node_key(path)
    assert "chmod 600" in refused.value.hint
    path.chmod(0o400)
    load_node_key(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for place in (pipe, tmp_path):
        with pytest.raises(IdentityError, match="cannot be read"):
            load_node_key(place)
    with pytest.raises(IdentityError, match="cannot be read"):
        load_node_key(tmp_path / "pipe" / "below")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot be written"):
        create_node_key(tmp_path / "file" / "state" / "node-key")


def test_a_credential_comes_first(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = create_node_key(path)
    folder = tmp_path / "credentials"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert credential() is None
    assert load_node_key(path).id == own.id
    handed = create_node_key(folder / "node-key")
    (folder / "node-key").chmod(0o440)  # as an access list shows
    assert credential() == folder / "node-key"
    assert load_node_key(path).id == handed.id
    assert read_node_key(path).id == own.id


def test_a_credential_that_is_wrong_is_not_passed_over(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_node_key(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "node-key").write_bytes(b"something else")
    with pytest.raises(IdentityError, match="no node key"):
        load_node_key(path)
    (tmp_path / "node-key").unlink()
    (tmp_path / "node-key").symlink_to(tmp_path / "node-key")
    with pytest.raises(IdentityError, match="cannot be read"):
        load_node_key(path)
