"""`nexus-edge init` and `nexus-edge key`: who this node is, and its key under a password."""

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any, Final

from nexus_edge.commands.result import Result, Stopwatch
from nexus_edge.errors import FileError, UsageError
from nexus_edge.files import SecretFile, read_bounded
from nexus_edge.identity import (
    NodeKey,
    NodeKeyMissing,
    create_node_key,
    credential,
    format_node_id,
    load_node_key,
    read_node_key,
    save_node_key,
    short_id,
)
from nexus_edge.identity.export import EXPORT_LIMIT, export_key, import_key

PASSWORD_LIMIT: Final = 1024
"""Bytes of a password file: larger ones are something else."""


def init(arguments: argparse.Namespace) -> Result:
    """`nexus-edge init`: makes the node key, unless there is one."""
    created = False
    try:
        key, place = _key(arguments)
    except NodeKeyMissing:
        place = _path(arguments)
        key = create_node_key(place)
        created = True
    lines = [*_shown(key, place), f"          {'new' if created else 'there already'}; whoever has this file is this node"]
    if created:
        lines.append("          `nexus-edge key export` makes a copy under a password, to be kept elsewhere")
    return Result({**_data(key, place), "created": created}, lines)


def key_show(arguments: argparse.Namespace) -> Result:
    """`nexus-edge key show`."""
    key, place = _key(arguments)
    return Result(_data(key, place), _shown(key, place))


def key_export(arguments: argparse.Namespace) -> Result:
    """`nexus-edge key export`: the key under a password, in a new file."""
    watch = Stopwatch()
    key, place = _key(arguments)
    target = SecretFile(arguments.to, EXPORT_LIMIT, "exported key")
    if target.exists():  # before anyone thinks of a password
        raise FileError("the exported key cannot be written", f"{arguments.to} exists already", "name another file")
    password = ask_password(arguments, confirm=True)
    with watch.step("export"):
        target.write(export_key(key, password), over=False)
    lines = [*_shown(key, place), f"exported  {arguments.to}  encrypted; without the password it is lost"]
    return Result({**_data(key, place), "exported": str(arguments.to), **watch.fields()}, lines)


def key_import(arguments: argparse.Namespace) -> Result:
    """`nexus-edge key import`: makes an exported key this node's, never in place of another."""
    watch = Stopwatch()
    place = _path(arguments)
    data = read_bounded(arguments.exported, EXPORT_LIMIT, "exported key")
    if SecretFile(place, EXPORT_LIMIT, "node key").exists():
        raise FileError("the node key cannot be written", f"{place} exists already", "move it away first: it is another node")
    password = ask_password(arguments, confirm=False)
    with watch.step("import"):
        key = import_key(data, password)
        save_node_key(key, place)
    lines = [*_shown(key, place), "          use it on one machine at a time: peers see both as one node"]
    return Result({**_data(key, place), **watch.fields()}, lines)


def _path(arguments: argparse.Namespace) -> Path:
    """The file that was named, else the agent's."""
    if arguments.key is not None:
        return Path(arguments.key)
    from nexus_edge.config import load

    return load().settings.paths.key


def _key(arguments: argparse.Namespace) -> tuple[NodeKey, Path]:
    """The key and its file: the one that was named, else this process's own."""
    if arguments.key is not None:
        return read_node_key(arguments.key), arguments.key
    path = _path(arguments)
    return load_node_key(path), credential() or path


def ask_password(arguments: argparse.Namespace, *, confirm: bool) -> str:
    """From a file's first line, or from the terminal without showing it. Never from the command line, which others can read."""
    if arguments.password_file is not None:
        try:
            text = read_bounded(arguments.password_file, PASSWORD_LIMIT, "password").decode()
        except UnicodeDecodeError:
            raise FileError("the password cannot be read", f"{arguments.password_file} is no UTF-8") from None
        return text.partition("\n")[0].removesuffix("\r")
    if not sys.stdin.isatty():
        raise UsageError("wrong usage", "there is no terminal to ask for the password", "name a file with --password-file")
    password = getpass.getpass("password: ")
    if confirm and getpass.getpass("again: ") != password:
        raise UsageError("the key is not exported", "the two passwords differ")
    return password


def _data(key: NodeKey, place: Path) -> dict[str, Any]:
    return {"id": format_node_id(key.id), "short": short_id(key.id), "file": str(place)}


def _shown(key: NodeKey, place: Path) -> list[str]:
    return [f"node      {format_node_id(key.id)}", f"key       {place}"]
