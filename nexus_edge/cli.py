"""The `nexus-edge` command: arguments, exit statuses and errors. Commands live in `nexus_edge.commands`.

Standard output is data, standard error is narration. With `--json` standard output is one object, whatever happens. docs/cli.md is
the contract.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

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

if TYPE_CHECKING:
    from nexus_edge.commands import Result

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

Command = Callable[[argparse.Namespace], "Result"]


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
        for line in output:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader left: nothing more to say, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


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
    parser = _Parser(prog="nexus-edge", description="Proves that an exact int8 model was run on a committed input.", allow_abbrev=False)
    parser.add_argument("--version", action=_Version, dest="version")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    models = commands.add_parser("model", help="import, inspect, commit and register models", allow_abbrev=False)
    of_model = models.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = _command(of_model, "import", "model_import", "check a .tflite file and write its integer program")
    _model_argument(command)
    _file(command, "--output", "where to write the program (.nxm); every --model takes it in place of the .tflite", required=True)
    _private(command)

    command = _command(of_model, "inspect", "model_inspect", "operators, shapes, semantics and the forecast of a proof")
    _model_argument(command)
    _key_options(command)
    _private(command)

    command = _command(of_model, "commit", "model_commit", "write the verifying key")
    _model_argument(command)
    _key_options(command)
    _private(command)
    _file(command, "--key", "where to write the verifying key", required=True)
    _file(
        command, "--secret", "where to write the secret of a private model; what proofs open is counted in it: keep it, and never copy it"
    )

    command = _command(of_model, "register", "model_register", "prove that the weights of a private model are what its program assumes")
    _owned_model(command)
    _file(command, "--out", "where to write the registration, for everyone who verifies", required=True)
    _threads(command)

    command = _command(
        of_model, "link", "model_link", "make a fresh commitment of a private model, and prove that it holds the registered weights"
    )
    _owned_model(command)
    _pair(command, "--new-key", "where to write the key of the fresh commitment")
    _pair(command, "--new-secret", "where to write its secret")
    _file(command, "--out", "where to write the link, for everyone who verifies under the new key", required=True)
    _threads(command)

    command = _command(
        of_model, "verify-registration", "model_verify_registration", "verify the registration of a private model, and record it"
    )
    _file(command, "--key", "a key of the model", required=True)
    _file(command, "--registration", "the registration", required=True)
    _state(command)

    command = _command(
        of_model, "verify-link", "model_verify_link", "verify that fresh commitments hold the registered weights, and record it"
    )
    _file(command, "--key", "the key of a fresh commitment, or of the registered one", required=True)
    _file(command, "--link", "the link", required=True)
    _state(command)

    command = _command(commands, "infer", "infer", "run a model exactly, without a proof")
    _model_option(command)
    _file(command, "--input", "the input: .npy, or .npz by tensor name", required=True)
    _file(command, "--output", "where to write the output", required=True)
    _threads(command)

    command = _command(commands, "prove", "prove_command", "run a model and prove it")
    _model_option(command)
    _key_options(command)
    _file(command, "--secret", "the secret of a private model")
    _file(command, "--input", "the input: .npy, or .npz by tensor name", required=True)
    _file(command, "--output", "where to write the output")
    _file(command, "--proof", "where to write the proof", required=True)
    command.add_argument("--context", type=_context, metavar="HEX32", help="32 bytes to bind the proof to, in hexadecimal (default: zeros)")
    command.add_argument("--clear-input", action="store_true", help="put the input into the statement instead of a commitment to it")
    command.add_argument(
        "--hide-output",
        "--commit-output",
        action="store_true",
        help="put a commitment to the output into the statement instead of the output",
    )
    _opening(
        command,
        ["--input-opening"],
        "the opening of the input's commitment: used if it exists, else a fresh one is written there (default: beside the proof)",
    )
    _opening(command, ["--output-opening"], "where to write the opening of a hidden output (default: beside the proof)")
    _threads(command)

    command = _command(commands, "commit", "commit_command", "commit to an input ahead of any proof, without showing it")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", type=Path, metavar="FILE", help="a model that takes the input: a .tflite file, or what `model import` wrote"
    )
    source.add_argument("--key", type=Path, metavar="FILE", help="or its verifying key")
    _semantics(command)
    command.add_argument("--security", type=int, choices=(100, 128), help="security of the proofs in bits (default: 100, or the key's)")
    _file(command, "--input", "the input: .npy, or .npz by tensor name", required=True)
    _opening(command, ["--opening"], "where to write the opening", required=True)

    openings = commands.add_parser("opening", help="show and share openings of commitments", allow_abbrev=False)
    of_opening = openings.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = _command(of_opening, "inspect", "opening_inspect", "what an opening is of, and how many proofs are left")
    command.add_argument("opening", type=Path, metavar="OPENING", help="the opening")

    command = _command(of_opening, "share", "opening_share", "make an opening for someone else, and take its proofs off this one")
    command.add_argument("opening", type=Path, metavar="OPENING", help="the opening to take from")
    _file(command, "--to", "where to write the new opening", required=True)
    command.add_argument(
        "--proofs", type=_proofs_count, required=True, metavar="N", help="how many proofs it is to be good for; 0 for one who only verifies"
    )

    command = _command(commands, "verify", "verify_command", "verify a proof")
    _file(command, "--key", "the verifying key", required=True)
    _file(command, "--proof", "the proof", required=True)
    _file(command, "--input", "also check that the proof is about this input")
    _file(command, "--output", "also check that the proven output is this one")
    _opening(command, ["--opening", "--input-opening"], "the opening of the input's commitment (default: beside the proof)")
    _opening(command, ["--output-opening"], "the opening of a hidden output (default: beside the proof)")
    command.add_argument("--context", type=_context, metavar="HEX32", help="also check that the proof is bound to these 32 bytes")
    _file(command, "--registration", "the registration of a private model (default: what is on record)")
    _file(command, "--link", "the link of a private model's fresh commitment (default: what is on record)")
    _state(command)

    _command(commands, "demo", "demo", "prove the model that ships with the package and verify it in another process")
    return parser


def _command(group: Any, name: str, function: str, summary: str) -> argparse.ArgumentParser:
    """A command whose code is imported only when it runs."""

    def run(arguments: argparse.Namespace) -> "Result":
        from nexus_edge import commands

        command: Command = getattr(commands, function)
        return command(arguments)

    parser: argparse.ArgumentParser = group.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object to standard output")
    parser.set_defaults(run=run)
    return parser


def _file(command: argparse.ArgumentParser, option: str, summary: str, *, required: bool = False) -> None:
    command.add_argument(option, type=Path, metavar="FILE", required=required, help=summary)


def _model_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, metavar="MODEL", help="a .tflite file, or what `model import` wrote")
    _semantics(command)


def _model_option(command: argparse.ArgumentParser) -> None:
    _file(command, "--model", "a .tflite file, or what `model import` wrote", required=True)
    _semantics(command)


def _semantics(command: argparse.ArgumentParser) -> None:
    names = ("tflm", "tflite-2.14", "litert-2.3-ref")
    command.add_argument("--semantics", choices=names, help="whose arithmetic to reproduce (default: tflm; uint8 models: tflite-2.14)")


def _key_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weights",
        choices=("committed", "inside"),
        default="committed",
        help="what the verifying key holds of the weights (default: committed)",
    )
    command.add_argument("--security", type=int, choices=(100, 128), default=100, help="security of a proof in bits (default: 100)")
    command.add_argument(
        "--mode",
        choices=("zk", "plain"),
        default="zk",
        help="zk: proofs show nothing but their statement; plain: for public inputs and benchmarks (default: zk)",
    )


def _private(command: argparse.ArgumentParser) -> None:
    command.add_argument("--private", action="store_true", help="keep the weights to yourself: the program says nothing about them")
    command.add_argument(
        "--bound",
        action="append",
        type=_bound,
        metavar="LOG2V",
        help="of a private model: values before a clamp are below 2^LOG2V; once, or once for each layer with weights (default: 14)",
    )


def _owned_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, metavar="MODEL", help="the private model: its .tflite file, or what `model import` wrote")
    _file(command, "--key", "its verifying key, which `model commit` wrote", required=True)
    _file(command, "--secret", "its secret, which `model commit` wrote", required=True)


def _pair(command: argparse.ArgumentParser, option: str, summary: str) -> None:
    command.add_argument(option, action="append", type=Path, metavar="FILE", required=True, help=f"{summary}; repeat for several at once")


def _state(command: argparse.ArgumentParser) -> None:
    _file(command, "--state", "folder of the record of verified registrations and links (default: nexus-edge in XDG_STATE_HOME)")


def _opening(command: argparse.ArgumentParser, options: Sequence[str], summary: str, *, required: bool = False) -> None:
    """An option to be repeated for several tensors."""
    command.add_argument(
        *options, action="append", type=Path, metavar="FILE", required=required, help=f"{summary}; of several tensors one each"
    )


def _threads(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=_threads_count, default=0, metavar="N", help="threads to use (default: one for each processor)")


def _threads_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1024")
    return int(text)


def _proofs_count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of proofs")
    return int(text)


def _bound(text: str) -> int:
    if not text.isdecimal() or len(text) > 3 or int(text) > 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not the logarithm of a bound")
    return int(text)


def _context(text: str) -> bytes:
    try:
        context = bytes.fromhex(text)
    except ValueError:
        context = b""
    if len(context) != 32:
        raise argparse.ArgumentTypeError("a context is 64 hexadecimal digits")
    return context
