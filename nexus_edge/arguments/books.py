"""Commands on the ledger and on what is lent. They read the ledger itself, beside a running agent or without one."""

import argparse
from pathlib import Path
from typing import Any

from nexus_edge.arguments.options import command, file, node_folder, positive, settings, subcommands

FORMATS = ("csv", "jsonl")


def add_books(commands: Any) -> None:
    """`ledger ...`, `credit ...`."""
    of_ledger = subcommands(commands, "ledger", "the books: list, verify, export, back up, restore")
    parser = _reads(command(of_ledger, "list", "ledger:ledger_list", "what happened to money, the newest first, and who owes whom"))
    parser.add_argument("--lines", type=positive, metavar="N", help="how many (default: 50)")
    parser.add_argument("--peer", metavar="PEER", help="only with this peer: its id, or the beginning of it")

    _reads(command(of_ledger, "verify", "ledger:ledger_verify", "check every object, signature, chain and sum"))

    parser = _reads(command(of_ledger, "export", "ledger:ledger_export", "everything as CSV or JSON lines"))
    parser.add_argument("--format", choices=FORMATS, default="csv", help="how to write it (default: csv)")
    file(parser, "--out", "where to write it, never over another file (default: standard output)")

    parser = _reads(command(of_ledger, "backup", "ledger:ledger_backup", "write a whole copy, beside a running agent"))
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write it; never over another file")

    parser = _reads(command(of_ledger, "restore", "ledger:ledger_restore", "go back to a copy; the agent must be stopped"))
    parser.add_argument("file", type=Path, metavar="FILE", help="the copy")

    of_credit = subcommands(commands, "credit", "what this node lends, and to whom")
    parser = _with_peer(command(of_credit, "grant", "credit:credit_grant", "lend a peer so much, whatever it did; 0 takes it back"))
    _amount(parser)
    _reads(command(of_credit, "list", "credit:credit_list", "how this node stands with everyone"))
    parser = _with_peer(command(of_credit, "expect", "credit:credit_expect", "you paid a peer elsewhere: take its entry that says so"))
    _invoice(_amount(parser))
    parser = _with_peer(command(of_credit, "prepay", "credit:credit_prepay", "a peer paid you elsewhere: sign that this node owes it"))
    _invoice(_amount(parser))
    parser = _with_peer(command(of_credit, "refund", "credit:credit_refund", "give back what a peer paid for a job"))
    parser.add_argument("job", metavar="JOB", help="the job: its id, or the beginning of it")
    _amount(parser, "all of it", nargs="?")
    parser = _with_peer(command(of_credit, "write-off", "credit:credit_write_off", "give up what a peer owes"))
    _amount(parser, "all that is at risk", nargs="?")


def _with_peer(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("peer", metavar="PEER", help="its id, or the beginning of one that is in the books")
    return _reads(parser)


def _amount(parser: argparse.ArgumentParser, default: str = "", **more: Any) -> argparse.ArgumentParser:
    parser.add_argument(
        "amount", metavar="AMOUNT", help="credits: 5, '0.5 cr' or '300 ucr'" + (f" (default: {default})" if default else ""), **more
    )
    return parser


def _invoice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for",
        dest="invoice",
        metavar="TEXT",
        required=True,
        help="the invoice, in the same words at both ends; only their digest is sent",
    )


def _reads(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    settings(parser)
    node_folder(parser, "folder of key and ledger")
    return parser
