"""The admin socket: at its path there is always one that listens and has the right mode, or none. Never two agents, never another's file."""

import fcntl
import grp
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from nexus_edge.errors import AgentUnavailable, ConfigError

LONGEST: Final = 107
"""Bytes of a path that the kernel takes for a socket."""
BACKLOG: Final = 16
ANSWERS_S: Final = 1.0
"""A socket with a listening process accepts at once, whatever the process does: its queue would have to be full."""


@contextmanager
def admin_socket(path: Path, group: str | None = None) -> Iterator[socket.socket]:
    """A listening socket at a path, for our own user or also for a group; it is gone at the end.

    Raises `AgentUnavailable` if another agent has it, `ConfigError` if there can be none.
    """
    if len(os.fsencode(path)) > LONGEST:
        raise ConfigError("the admin socket has no room", f"{path} has more than {LONGEST} bytes", "set api.socket to a shorter path")
    with _explained(path):
        owner = _group(group)
        _check_folder(path.parent, owner)
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with _explained(path):
            _take(lock, path)
            listener = _listen(path, owner)
        try:
            yield listener
        finally:
            listener.close()
            with suppress(OSError):  # the folder is gone, and the socket with it
                path.unlink()
    finally:
        os.close(lock)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failed:
        why = f"{path}: {failed.strerror or failed}"
        raise ConfigError("there can be no admin socket", why, "set api.socket to a path where the agent may write") from failed


def _group(name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError("there can be no admin socket", f"api.group: there is no group {name!r}") from None


def _check_folder(folder: Path, group: int | None) -> None:
    """In a folder where others may write they could put a socket of their own in our place, and be believed.

    Its owner always may: that is us or root. The group that may use the socket may write there too: it can do all that the agent can.
    """
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    found = folder.stat()
    refused, hint = "there can be no admin socket", "set api.socket to a path in a folder of yours"
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(refused, f"{folder} belongs to user {found.st_uid}, the agent is user {os.geteuid()}", f"`chown` it, or {hint}")
    if found.st_mode & stat.S_IWOTH:
        raise ConfigError(refused, f"everyone may write in {folder}", hint)
    if found.st_mode & stat.S_IWGRP and found.st_gid != group:
        raise ConfigError(refused, f"group {found.st_gid} may write in {folder}", f"`chmod g-w` it, set api.group to that group, or {hint}")


def _take(lock: int, path: Path) -> None:
    """Be the only one, and clear away what an agent left that was killed."""
    running = AgentUnavailable("an agent runs already", f"it has {path}", "`nexus-edge status` shows it")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise running from None
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):  # whoever may change what it points to would be believed in our place
        raise ConfigError("there can be no admin socket", f"{path} is a symbolic link", "remove it, or set api.socket to where it points")
    if not stat.S_ISSOCK(mode):
        raise ConfigError("there can be no admin socket", f"{path} is no socket", "move it away, or set api.socket")
    if _somebody_answers(path):  # without our lock: perhaps made by a service manager
        raise running
    path.unlink()


def _somebody_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWERS_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # it may be busy, or another user's: not ours to remove
        return True


def _listen(path: Path, owner: int | None) -> socket.socket:
    """Made in a folder of its own that nobody else can enter, and moved to its place when its mode is right: there is no moment between.

    The process's umask is left alone: it belongs to all threads.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as private:
            made = Path(private) / "s"
            # Its path may be longer than the kernel takes: it is named through a handle of its folder.
            folder = os.open(private, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                listener.bind(f"/proc/self/fd/{folder}/s")
            finally:
                os.close(folder)
            if owner is not None:
                os.chown(made, -1, owner)
            made.chmod(0o600 if owner is None else 0o660)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            made.replace(path)
    except BaseException:
        listener.close()
        raise
    return listener
