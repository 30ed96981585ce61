"""`nexus-edge group`: the key of a fleet's owner, and the certificates that it signs for members. No agent is asked, and no settings are read."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from nexus_edge.clock import now_ms
from nexus_edge.commands.identity import ask_password
from nexus_edge.commands.result import Result
from nexus_edge.errors import IdentityError, UsageError
from nexus_edge.files import read_bounded, read_prefix, write_whole
from nexus_edge.identity import NodeKey, NodeKeyMissing, create_node_key, format_node_id, parse_node_id, read_node_key, short_id
from nexus_edge.identity.export import EXPORT_LIMIT, import_key, is_export
from nexus_edge.types import UnixMs
from nexus_edge.wire.certificates import FILE_LIMIT, issue, read_certificate, write_certificate
from nexus_edge.wire.limits import GROUP_LIFE_MS
from nexus_edge.wire.objects import GroupCertificate

DAY_MS: Final = 86_400_000
MOST_DAYS: Final = GROUP_LIFE_MS // DAY_MS


def group_init(arguments: argparse.Namespace) -> Result:
    """`nexus-edge group init KEYFILE`: makes the key of a fleet, never over another file."""
    key = create_node_key(arguments.file)
    lines = [
        *_key_lines(key, arguments.file),
        "          whoever has this file can name members: keep it off the nodes, and a copy under a password (`key export --key`)",
        f'          on each node that serves the fleet: fleet.groups = ["{format_node_id(key.id)}"]',
    ]
    return Result(_key_data(key, arguments.file), lines)


def group_sign(arguments: argparse.Namespace) -> Result:
    """`nexus-edge group sign --key KEYFILE NODE --out FILE`: a certificate, in the place of the one that it renews."""
    days = MOST_DAYS if arguments.days is None else arguments.days
    if days > MOST_DAYS:
        raise UsageError("wrong usage", f"a certificate holds for at most {MOST_DAYS} days")
    node = parse_node_id(arguments.node)
    certificate = issue(_key(arguments), node, now_ms(), days * DAY_MS)
    write_whole(arguments.out, write_certificate(certificate), "group certificate")
    lines = [*_lines(certificate.object), f"written   {arguments.out}", "          to the node, as a file of fleet.certificates there"]
    return Result({**_data(certificate.object), "file": str(arguments.out)}, lines)


def group_show(arguments: argparse.Namespace) -> Result:
    """`nexus-edge group show FILE`: whose key it is, or what a certificate says. The error says that it has ended."""
    if read_prefix(arguments.file, 64, "file").startswith(b"nexus-edge node key"):
        key = _read_key(arguments.file)
        return Result(_key_data(key, arguments.file), _key_lines(key, arguments.file))
    what = read_certificate(read_bounded(arguments.file, FILE_LIMIT, "group certificate")).object
    ended = None
    if what.exp <= now_ms():
        ended = IdentityError("the certificate has ended", _moment(what.exp), "`nexus-edge group sign` renews it")
    return Result({**_data(what), "file": str(arguments.file)}, _lines(what), ended)


def _key(arguments: argparse.Namespace) -> NodeKey:
    """From its file, or from an export under its password."""
    if is_export(read_prefix(arguments.key, EXPORT_LIMIT, "group key")):
        return import_key(read_bounded(arguments.key, EXPORT_LIMIT, "group key"), ask_password(arguments, confirm=False))
    return _read_key(arguments.key)


def _read_key(path: Path) -> NodeKey:
    try:
        return read_node_key(path)
    except NodeKeyMissing:
        raise IdentityError("there is no group key", f"{path} is empty", "`nexus-edge group init` makes one") from None


def _key_data(key: NodeKey, path: Path) -> dict[str, Any]:
    return {"key": format_node_id(key.id), "short": short_id(key.id), "file": str(path)}


def _key_lines(key: NodeKey, path: Path) -> list[str]:
    return [f"group     {format_node_id(key.id)}", f"key       {path}"]


def _data(what: GroupCertificate) -> dict[str, Any]:
    return {"key": format_node_id(what.iss), "node": format_node_id(what.node), "from": what.at, "until": what.exp}


def _lines(what: GroupCertificate) -> list[str]:
    return [
        f"group     {format_node_id(what.iss)}",
        f"node      {format_node_id(what.node)}",
        f"holds     {_moment(what.at)} to {_moment(what.exp)}",
    ]


def _moment(at: UnixMs) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
