"""The `nexus-edge` command: exit statuses, output and errors. Arguments are in `nexus_edge.arguments`, commands in `nexus_edge.commands`.

Standard output is data, standard error is narration. With `--json` standard output is one object, whatever happens. docs/cli.md is
the contract.
"""

import argparse
import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn

from nexus_edge.arguments import GROUPS
from nexus_edge.errors import (
    AgentUnavailable,
    BadInput,
    Cancelled,
    ConfigError,
    FileError,
    IdentityError,
    JobFailed,
    LedgerError,
    ModelError,
    NativeModuleMissing,
    NexusEdgeError,
    NoRandomness,
    OpeningError,
    PeerError,
    ProofRejected,
    UnsupportedCpu,
    UsageError,
)
from nexus_edge.units import show_in

if TYPE_CHECKING:
    from nexus_edge.commands.result import Result

ISSUES = "https://github.com/nexus-edge/nexus-edge/issues"


class ExitStatus(IntEnum):
    """What a script can tell from the exit status."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    MODEL = 3
    INPUT = 4
    REJECTED = 5
    FILE = 6
    MACHINE = 7
    OPENING = 8
    AGENT = 9
    PEER = 10
    LEDGER = 11
    JOB = 12
    CONFIG = 78
    INTERRUPTED = 130


_STATUS_OF_ERROR: tuple[tuple[type[BaseException], ExitStatus], ...] = (
    (UsageError, ExitStatus.USAGE),
    (ModelError, ExitStatus.MODEL),
    (BadInput, ExitStatus.INPUT),
    (ProofRejected, ExitStatus.REJECTED),
    (FileError, ExitStatus.FILE),
    (OpeningError, ExitStatus.OPENING),
    (AgentUnavailable, ExitStatus.AGENT),
    (PeerError, ExitStatus.PEER),
    (LedgerError, ExitStatus.LEDGER),
    (JobFailed, ExitStatus.JOB),
    (ConfigError, ExitStatus.CONFIG),
    (IdentityError, ExitStatus.CONFIG),
    (NoRandomness, ExitStatus.MACHINE),
    (UnsupportedCpu, ExitStatus.MACHINE),
    (NativeModuleMissing, ExitStatus.MACHINE),
    (MemoryError, ExitStatus.MACHINE),
    (Cancelled, ExitStatus.INTERRUPTED),
    (KeyboardInterrupt, ExitStatus.INTERRUPTED),
)


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError("wrong usage", message, f"{self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status and never raises."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    status = ExitStatus.OK
    output: list[str] = []
    try:
        parsed = _parser().parse_args(words)
        result: Result = parsed.run(parsed)
        if result.error is not None:
            status = _status(result.error)
            _narrate(result.error)
            result.data.update(_as_data(result.error, status))
        output += [json.dumps(result.data)] if as_json else result.lines
    except SystemExit as leaving:  # --help and --version
        return int(leaving.code or 0)
    except BaseException as error:  # noqa: BLE001 - the last resort: a user never sees a traceback, not even a native panic's
        status = _status(error)
        _narrate(error)
        output += [json.dumps(_as_data(error, status))] if as_json else []
    try:
        _print(output)
    except BrokenPipeError:  # the reader left: nothing more to say, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as failed:
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        unwritten = FileError("what there is to say cannot be written", f"standard output: {failed.strerror or failed}")
        _narrate(unwritten)
        status = status or _status(unwritten)
    return status


def _print(lines: Sequence[str]) -> None:
    if sys.stdout is None:  # it was closed before we began
        if lines:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return
    for line in lines:
        print(show_in(line, sys.stdout.encoding or "utf-8"))
    sys.stdout.flush()


def _status(error: BaseException) -> ExitStatus:
    return next((status for kind, status in _STATUS_OF_ERROR if isinstance(error, kind)), ExitStatus.INTERNAL)


def _explained(error: BaseException) -> NexusEdgeError:
    """What happened, why, and what to do."""
    match error:
        case NexusEdgeError():
            return error
        case MemoryError():
            return NexusEdgeError("out of memory", str(error), "`model inspect` forecasts what a proof needs")
        case KeyboardInterrupt():
            return NexusEdgeError("stopped")
        case _:
            hint = f"this is a bug: please report it at {ISSUES}; NEXUS_EDGE_DEBUG=1 shows where"
            return NexusEdgeError("internal error", f"{type(error).__name__}: {error}", hint)


def _narrate(error: BaseException) -> None:
    if os.environ.get("NEXUS_EDGE_DEBUG") == "1":
        traceback.print_exception(error)
    shown = _explained(error)
    print(f"nexus-edge: {shown.what}" + (f": {shown.why}" if shown.why else ""), file=sys.stderr)
    if shown.hint:
        print(f"  {shown.hint}", file=sys.stderr)


def _as_data(error: BaseException, status: ExitStatus) -> dict[str, Any]:
    shown = _explained(error)
    details = {"kind": status.name.lower(), "what": shown.what, "why": shown.why, "hint": shown.hint}
    return {"error": details, "exit_status": int(status)}


class _Version(argparse.Action):
    """Looks the version up only when asked: the package's metadata is slow to read."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"nexus-edge {version('nexus-edge')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nexus-edge", description="Runs int8 models for peers, and proves that the exact model was run.", allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version, dest="version")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in GROUPS:
        add(commands)
    return parser
