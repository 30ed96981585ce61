"""`nexus-edge ledger`: the books of this node, and copies of them.

What only reads does so beside a running agent. A restore needs the agent stopped.
"""

import argparse
import os
from datetime import datetime
from typing import Any, Final

from nexus_edge.clock import now_ms
from nexus_edge.commands.asking import settings_of
from nexus_edge.commands.result import Result, Stopwatch
from nexus_edge.config import Settings
from nexus_edge.config.quantities import CREDITS
from nexus_edge.errors import IdentityError, UsageError
from nexus_edge.identity import NodeKey, format_node_id, load_node_key, parse_node_id, short_id
from nexus_edge.ledger import Damaged, Member, Movement, Reader, restore_backup
from nexus_edge.ledger.export import FORMATS, write_lines
from nexus_edge.ledger.integrity import Report
from nexus_edge.ledger.ledger import FILE, take_lock
from nexus_edge.ledger.looking import backup, look, verify
from nexus_edge.ledger.policy import credit_policy
from nexus_edge.ledger.reading import Book
from nexus_edge.types import NodeId
from nexus_edge.units import show_name

LINES: Final = 50
"""Shown unless told otherwise: a screen or two."""


def ledger_list(arguments: argparse.Namespace) -> Result:
    """`nexus-edge ledger list`: the newest lines and how we stand with everyone."""
    settings, key = agent_settings(arguments), node_key(arguments)
    limit = arguments.lines or LINES

    def query(reader: Reader) -> tuple[list[Movement], list[Book]]:
        peer = find_peer(arguments.peer, reader.partners()) if arguments.peer else None
        return reader.movements(limit, peer=peer), [book for book in reader.books() if peer in (None, book.peer)]

    movements, books = look(settings.paths.ledger, key.id, query, credit_policy(settings))
    data = {"movements": [_movement_data(one) for one in movements], "books": [book_data(one) for one in books]}
    lines = [_movement_line(one) for one in movements] or ["no movements yet"]
    return Result(data, [*lines, "", *book_lines(books)])


def ledger_verify(arguments: argparse.Namespace) -> Result:
    """`nexus-edge ledger verify`: every object, signature, chain and sum. The error lists what is wrong."""
    watch = Stopwatch()
    settings, key = agent_settings(arguments), node_key(arguments)
    with watch.step("verify"):
        report = verify(settings.paths.ledger, key.id)
    data = {**_report_data(report), **watch.fields()}
    if not report.faults:
        return Result(data, [_report_line(report)])
    broken = Damaged(
        "the ledger contradicts itself",
        f"{len(report.faults)} faults, first: {report.faults[0]}",
        "nothing was changed; stop the agent and restore a backup",
    )
    return Result(data, [f"✗ {fault}" for fault in report.faults], broken)


def ledger_export(arguments: argparse.Namespace) -> Result:
    """`nexus-edge ledger export`: all lines as CSV or JSON lines, to a new file or to standard output."""
    settings, key = agent_settings(arguments), node_key(arguments)
    write = FORMATS[arguments.format]
    if arguments.out is None:
        lines = look(settings.paths.ledger, key.id, lambda reader: list(write(reader)))
        return Result({"lines": lines}, lines)
    count = look(settings.paths.ledger, key.id, lambda reader: write_lines(arguments.out, write(reader)))
    return Result({"file": str(arguments.out), "lines": count}, [f"{count} lines in {arguments.out}"])


def ledger_backup(arguments: argparse.Namespace) -> Result:
    """`nexus-edge ledger backup FILE`: a whole copy, beside a running agent."""
    watch = Stopwatch()
    settings = agent_settings(arguments)
    with watch.step("backup"):
        backup(settings.paths.ledger, arguments.file)
    size = arguments.file.stat().st_size
    lines = [f"{arguments.file}, {size} bytes", "it holds no key: `nexus-edge key export` copies that"]
    return Result({"file": str(arguments.file), "bytes": size, **watch.fields()}, lines)


def ledger_restore(arguments: argparse.Namespace) -> Result:
    """`nexus-edge ledger restore FILE`: goes back to a backup; the former ledger stays beside it."""
    settings, key = agent_settings(arguments), node_key(arguments)
    folder = settings.paths.ledger
    lock = take_lock(folder)
    try:
        restored = restore_backup(arguments.file, folder / FILE, key.id, now_ms())
    finally:
        os.close(lock)
    data = {
        **_report_data(restored.report),
        "peers_to_compare": restored.peers,
        "former": None if restored.aside is None else str(restored.aside),
    }
    lines = [
        _report_line(restored.report),
        f"nothing is paid to {restored.peers} peers before their books have been compared: the agent does that when they are up",
        *([] if restored.aside is None else [f"the former ledger is {restored.aside}"]),
    ]
    return Result(data, lines)


def show_credits(amount: int, *, signed: bool = False) -> str:
    """Micro-credits as credits, exactly."""
    whole, rest = divmod(abs(amount), CREDITS["cr"])
    sign = "-" if amount < 0 else "+" if signed else ""
    return f"{sign}{whole}.{rest:06}"


def agent_settings(arguments: argparse.Namespace) -> Settings:
    """The settings in force."""
    return settings_of(arguments).settings


def node_key(arguments: argparse.Namespace) -> NodeKey:
    """Whose books they are."""
    return load_node_key(agent_settings(arguments).paths.key)


def partners(settings: Settings, key: NodeKey) -> list[NodeId]:
    """Everyone in the books."""
    if not (settings.paths.ledger / FILE).exists():
        return []
    return look(settings.paths.ledger, key.id, lambda reader: reader.partners())


def find_peer(text: str, known: list[NodeId]) -> NodeId:
    """A whole id, or the beginning of one that is in the books."""
    start = text.strip().replace("-", "").lower()
    found = [peer for peer in known if format_node_id(peer).replace("-", "").startswith(start)] if start else []
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise UsageError("wrong usage", f"{len(found)} peers begin with {text!r}", "give more of the id")
    try:
        return parse_node_id(text)
    except IdentityError as wrong:
        # Never a name: a node calls itself what it likes, and whoever called itself like another would get that one's credit.
        hint = "give a whole id (`peers --json`), or the beginning of one that `credit list` shows; names are what nodes call themselves"
        raise UsageError(wrong.what, wrong.why, hint) from None


def _movement_data(one: Movement) -> dict[str, Any]:
    return {
        "n": one.n,
        "at": one.at,
        "kind": one.kind,
        "peer": format_node_id(one.peer),
        "job": None if one.job is None else one.job.hex(),
        "amount_ucr": one.amount,
        "balance_ucr": one.balance,
        "signatures": one.signatures,
        "entry": None if one.entry is None else one.entry.hex(),
    }


_PROMISES: Final = {"offered", "held", "released", "cancelled"}
"""Lines that wait for nobody's signature."""


def _movement_line(one: Movement) -> str:
    at = datetime.fromtimestamp(one.at / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    job = "" if one.job is None else f"j-{one.job.hex()[:4]}"
    balance = "" if one.balance is None else show_credits(one.balance, signed=True)
    mark = "✓ both" if one.signatures == "both" else "" if one.kind in _PROMISES else "◇ ours"
    line = f"{one.n:>8}  {at}  {one.kind:<9}  {short_id(one.peer)}  {job:<6}  {show_credits(one.amount, signed=True):>14}  {balance:>14}  {mark}"
    return line.rstrip()


def book_data(one: Book) -> dict[str, Any]:
    """A book for `--json`."""
    return {
        "peer": format_node_id(one.peer),
        "owed_ucr": one.owed,
        "reserved_in_ucr": one.reserved_in,
        "reserved_out_ucr": one.reserved_out,
        "locked_ucr": one.locked,
        "granted_ucr": one.granted,
        "line_ucr": one.line,
        "fleet": None if one.member is None else one.member.group.label,
        "fleet_until": None if one.member is None else one.member.until,
        "exposure_ucr": one.exposure,
        "disputed_ucr": one.disputed,
        "to_compare": one.unsynchronised,
    }


def book_lines(books: list[Book]) -> list[str]:
    """Books for people."""
    if not books:
        return ["no peers in the books yet"]
    net = sum(one.owed for one in books)
    lines = [f"{'peer':<9}{'owes us':>15}{'at risk':>14}{'lent':>14}{'granted':>14}"]
    for one in books:
        row = f"{short_id(one.peer):<9}{show_credits(one.owed, signed=True):>15}"
        line = "no bound" if one.member is not None and one.member.group.line is None else show_credits(one.line)
        row += f"{show_credits(one.exposure):>14}{line:>14}{show_credits(one.granted):>14}"
        row += "" if one.member is None else f"  fleet {_member(one.member)}"
        row += f"  disputed {show_credits(one.disputed)}" if one.disputed else ""
        lines.append(row + ("  to be compared" if one.unsynchronised else ""))
    return [*lines, f"net {show_credits(net, signed=True)} cr with {len(books)} peers"]


def _member(member: Member) -> str:
    until = datetime.fromtimestamp(member.until / 1000).astimezone().strftime("%Y-%m-%d")
    return f"{show_name(member.group.label)} until {until}"


def _report_data(report: Report) -> dict[str, Any]:
    return {
        "sound": not report.faults,
        "objects": report.objects,
        "signatures": report.signatures,
        "entries": report.entries,
        "events": report.events,
        "faults": list(report.faults),
    }


def _report_line(report: Report) -> str:
    return f"✓ unbroken: {report.entries} entries, {report.objects} objects and {report.signatures} signatures, {report.events} events"
