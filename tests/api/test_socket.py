"""The admin socket: its mode, its path, and one agent at a time."""

import grp
import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from nexus_edge.api.socket import admin_socket
from nexus_edge.errors import AgentUnavailable, ConfigError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "admin.sock"


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def test_only_the_owner_may_open_it(path: Path) -> None:
    with admin_socket(path):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert connects(path)
    assert not path.exists()


def test_a_group_may_open_it(path: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    with admin_socket(path, group):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o660
        assert path.lstat().st_gid == os.getgid()


def test_a_group_that_is_not_there(path: Path) -> None:
    with pytest.raises(ConfigError, match="no group 'nobody-has-this'"), admin_socket(path, "nobody-has-this"):
        pass


def test_the_umask_does_not_matter(path: Path) -> None:
    before = os.umask(0)
    try:
        with admin_socket(path):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_second_agent_is_refused(path: Path) -> None:
    with admin_socket(path), pytest.raises(AgentUnavailable, match="an agent runs already"), admin_socket(path):
        pass


def test_what_a_killed_agent_left_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert not connects(path)
    with admin_socket(path):
        assert connects(path)


def test_a_socket_where_somebody_answers_is_never_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(AgentUnavailable), admin_socket(path):
            pass
        assert connects(path)


def test_a_file_is_never_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is no socket"), admin_socket(path):
        pass
    assert path.read_text() == "precious"


def test_a_folder_where_everyone_writes_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(ConfigError, match="everyone may write"), admin_socket(path):
        pass


def test_a_folder_where_another_group_writes_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o770)
    with pytest.raises(ConfigError, match=r"group \d+ may write .*chmod g-w.*api\.group"), admin_socket(path):
        pass
    with admin_socket(path, grp.getgrgid(path.parent.stat().st_gid).gr_name):
        assert connects(path)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")


@as_root
def test_a_folder_of_another_user_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    os.chown(path.parent, 4321, os.getgid())
    with pytest.raises(ConfigError, match=r"belongs to user 4321, the agent is user 0 .*chown"), admin_socket(path):
        pass
    assert list(path.parent.iterdir()) == []


@as_root
def test_a_folder_where_the_wrong_group_writes_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o770)
    os.chown(path.parent, 0, 4321)
    with pytest.raises(ConfigError, match="group 4321 may write"), admin_socket(path, grp.getgrgid(os.getgid()).gr_name):
        pass


def test_a_link_is_refused_and_stays(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    elsewhere = path.with_name("elsewhere.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(elsewhere))
    path.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="is a symbolic link"), admin_socket(path):
        pass
    assert path.is_symlink()
    assert elsewhere.is_socket()


def test_a_path_that_the_kernel_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="more than 107 bytes"), admin_socket(tmp_path / ("x" * 120)):
        pass


def test_a_path_of_the_greatest_length(tmp_path: Path) -> None:
    path = tmp_path / ("x" * (107 - len(os.fsencode(tmp_path)) - 1))
    with admin_socket(path):
        assert connects(path)


def test_of_many_that_start_at_once_one_wins_and_its_socket_stays(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    start, entered, done, won = threading.Barrier(8), threading.Event(), threading.Event(), []

    def compete() -> None:
        start.wait()
        try:
            with admin_socket(path):
                won.append(True)
                entered.set()
                done.wait(10)
        except AgentUnavailable:
            pass

    rivals = [threading.Thread(target=compete) for _ in range(8)]
    for rival in rivals:
        rival.start()
    assert entered.wait(10)
    while sum(rival.is_alive() for rival in rivals) > 1:
        time.sleep(0.01)
    assert won == [True]
    assert connects(path)
    done.set()
    for rival in rivals:
        rival.join(10)


def test_errors_of_the_agent_are_not_taken_for_errors_of_the_socket(path: Path) -> None:
    with pytest.raises(OSError, match="the agent's own"), admin_socket(path):
        raise OSError("the agent's own")
    assert not path.exists()
