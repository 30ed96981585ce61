"""The file of a node key: two lines of text, for its owner alone, on the disk before the key is used.

The first line says what it is. The second is the seed as 64 hexadecimal digits and 8 digits of check, so that a damaged file is found out
instead of making another node of this one. A service gets the same file as the systemd credential `node-key`.
"""

import os
import stat
from pathlib import Path
from typing import Final

from blake3 import blake3

from nexus_edge.errors import FileError, IdentityError
from nexus_edge.files import OTHERS, SecretFile
from nexus_edge.identity.key import NodeKey

NAME: Final = "node-key"
"""Of the credential."""

_HEADER: Final = b"nexus-edge node key 1\n"
_SEED, _CHECK = 32, 4
_LIMIT: Final = 4096
"""More than any version of this file will have: a larger one is something else."""


class NodeKeyMissing(IdentityError):
    """There is no node key yet. Everything else that is wrong with one must not be mended by making another."""


def credential() -> Path | None:
    """The key that the service manager hands to this process, if it does."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    path = Path(folder) / NAME
    try:
        path.stat()
    except FileNotFoundError:
        return None
    except OSError:
        pass  # it is there, and reading it will say what is wrong: another key must not take its place
    return path


def load_node_key(path: Path) -> NodeKey:
    """The key of this process: the credential if there is one, else the file. Raises `NodeKeyMissing` and `IdentityError`."""
    handed = credential()
    if handed is not None:
        # Nobody else can enter the folder. systemd's access lists show as permissions of the group.
        return _decode(_read(handed, private=False), handed)
    return read_node_key(path)


def read_node_key(path: Path) -> NodeKey:
    """The key in a file of mode 0600. Raises `NodeKeyMissing`, and `IdentityError` if it is damaged or others may read it."""
    return _decode(_read(path, private=True), path)


def create_node_key(path: Path) -> NodeKey:
    """Make a fresh key; its file is on the disk when this returns. Raises `FileError` if there is one already or it cannot be written."""
    key = NodeKey.generate()
    save_node_key(key, path)
    return key


def save_node_key(key: NodeKey, path: Path) -> None:
    """Write a key to a new file of mode 0600, never over another, and sync it. Raises `FileError`."""
    try:
        _make_folder(path.parent)
    except OSError as failed:
        raise FileError("the node key cannot be written", f"{path.parent}: {failed.strerror or failed}") from failed
    SecretFile(path, _LIMIT, "node key").write(_encode(key.seed()), over=False)


def _read(path: Path, *, private: bool) -> bytes:
    """The permissions are those of the file that is read: it cannot be exchanged in between."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not make us wait
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as failed:
        raise IdentityError("the node key cannot be read", f"{path}: {failed.strerror or failed}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise IdentityError("the node key cannot be read", f"{path} is no regular file")
        if private and status.st_mode & OTHERS:
            why = f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, so that others may have read it"
            raise IdentityError("the node key is not private", why, f"chmod 600 {path}, if nobody did; else make a new one")
        data = os.read(handle, _LIMIT)
    except OSError as failed:
        raise IdentityError("the node key cannot be read", f"{path}: {failed.strerror or failed}") from None
    finally:
        os.close(handle)
    if not data:  # the place that a killed process had kept for a key
        raise _missing(path)
    return data


def _encode(seed: bytes) -> bytes:
    check = blake3(seed, derive_key_context="nexus-edge 1 node key check").digest(length=_CHECK)
    return _HEADER + (seed + check).hex().encode() + b"\n"


def _decode(data: bytes, path: Path) -> NodeKey:
    if not data.startswith(_HEADER):
        raise IdentityError("this is no node key", f"{path} does not begin as one", "`key import` takes exported keys")
    try:
        seed = bytes.fromhex(data[len(_HEADER) :].decode("ascii"))[:_SEED]
    except ValueError:
        seed = b""
    if data != _encode(seed):
        raise IdentityError("the node key is damaged", f"{path} is not as it was written", "restore it, or `key import` an exported key")
    return NodeKey.from_seed(seed)


def _missing(path: Path) -> NodeKeyMissing:
    return NodeKeyMissing("there is no node key", f"{path} does not exist or is empty", "`nexus-edge init` makes one")


def _make_folder(folder: Path) -> None:
    """With its parents, for the owner alone, each on the disk: a key that is lost with its folder after it was used is another node."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
