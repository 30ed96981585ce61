"""Options that several commands have, and how a command is put together."""

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nexus_edge.commands.result import Result


def command(group: Any, name: str, function: str, summary: str) -> argparse.ArgumentParser:
    """A command whose code, `module:function` in `nexus_edge.commands`, is imported only when it runs."""

    def run(arguments: argparse.Namespace) -> "Result":
        return implementation(function)(arguments)

    parser: argparse.ArgumentParser = group.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object to standard output")
    parser.set_defaults(run=run, function=function)
    return parser


def implementation(function: str) -> Callable[[argparse.Namespace], "Result"]:
    """The code of a command."""
    module, _, name = function.partition(":")
    found: Callable[[argparse.Namespace], Result] = getattr(importlib.import_module(f"nexus_edge.commands.{module}"), name)
    return found


def subcommands(group: Any, name: str, summary: str) -> Any:
    """A command that has commands."""
    parser = group.add_parser(name, help=summary, allow_abbrev=False)
    return parser.add_subparsers(title="commands", required=True, metavar="COMMAND")


def file(parser: argparse.ArgumentParser, option: str, summary: str, *, required: bool = False, dest: str | None = None) -> None:
    """An option that names a file."""
    name = {} if dest is None else {"dest": dest}
    parser.add_argument(option, type=Path, metavar="FILE", required=required, help=summary, **name)


def model_argument(parser: argparse.ArgumentParser) -> None:
    """The model, as an argument."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .tflite file, or what `model import` wrote")
    semantics(parser)


def model_option(parser: argparse.ArgumentParser) -> None:
    """The model, as an option."""
    file(parser, "--model", "a .tflite file, or what `model import` wrote", required=True)
    semantics(parser)


def semantics(parser: argparse.ArgumentParser) -> None:
    """Whose arithmetic."""
    names = ("tflm", "tflite-2.14", "litert-2.3-ref")
    parser.add_argument("--semantics", choices=names, help="whose arithmetic to reproduce (default: tflm; uint8 models: tflite-2.14)")


def key_options(parser: argparse.ArgumentParser) -> None:
    """What a verifying key depends on."""
    parser.add_argument(
        "--weights",
        choices=("committed", "inside"),
        default="committed",
        help="what the verifying key holds of the weights (default: committed)",
    )
    parser.add_argument("--security", type=int, choices=(100, 128), default=100, help="security of a proof in bits (default: 100)")
    parser.add_argument(
        "--mode",
        choices=("zk", "plain"),
        default="zk",
        help="zk: proofs show nothing but their statement; plain: for public inputs and benchmarks (default: zk)",
    )


def private(parser: argparse.ArgumentParser) -> None:
    """Of private models."""
    parser.add_argument("--private", action="store_true", help="keep the weights to yourself: the program says nothing about them")
    parser.add_argument(
        "--bound",
        action="append",
        type=_bound,
        metavar="LOG2V",
        help="of a private model: values before a clamp are below 2^LOG2V; once, or once for each layer with weights (default: 14)",
    )


def owned_model(parser: argparse.ArgumentParser) -> None:
    """A private model, its key and its secret."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="the private model: its .tflite file, or what `model import` wrote")
    file(parser, "--key", "its verifying key, which `model commit` wrote", required=True)
    file(parser, "--secret", "its secret, which `model commit` wrote", required=True)


def pair(parser: argparse.ArgumentParser, option: str, summary: str) -> None:
    """An option to be repeated, one file of a pair each time."""
    parser.add_argument(option, action="append", type=Path, metavar="FILE", required=True, help=f"{summary}; repeat for several at once")


def state(parser: argparse.ArgumentParser) -> None:
    """The record of what was verified."""
    file(parser, "--state", "folder of the record of verified registrations and links (default: nexus-edge in XDG_STATE_HOME)")


def opening(parser: argparse.ArgumentParser, options: Sequence[str], summary: str, *, required: bool = False) -> None:
    """An option to be repeated for several tensors."""
    parser.add_argument(
        *options, action="append", type=Path, metavar="FILE", required=required, help=f"{summary}; of several tensors one each"
    )


def settings(parser: argparse.ArgumentParser) -> None:
    """Where settings come from."""
    file(parser, "--config", "read the settings from this file, and from no other")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="SECTION.KEY=VALUE",
        help="one setting; comes before files and variables",
    )
    parser.set_defaults(flags={})


def node_folder(parser: argparse.ArgumentParser, summary: str) -> None:
    """The folder of a node. Like any file on a command line it may be named from where one is; in files and variables it may not."""
    parser.add_argument("--state", action=Sets, setting="node.state", type=_folder, metavar="DIR", help=summary)


def threads(parser: argparse.ArgumentParser) -> None:
    """How many threads."""
    parser.add_argument("--threads", type=_threads_count, default=0, metavar="N", help="threads to use (default: one for each processor)")


def _threads_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1024")
    return int(text)


def positive(text: str) -> int:
    """A number of things, at least one."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 9 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def proofs_count(text: str) -> int:
    """A number of proofs."""
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of proofs")
    return int(text)


def _folder(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("no folder is named")
    return str(Path(text).absolute())


def _bound(text: str) -> int:
    if not text.isdecimal() or len(text) > 3 or int(text) > 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not the logarithm of a bound")
    return int(text)


def context(text: str) -> bytes:
    """32 bytes in hexadecimal."""
    try:
        context = bytes.fromhex(text)
    except ValueError:
        context = b""
    if len(context) != 32:
        raise argparse.ArgumentTypeError("a context is 64 hexadecimal digits")
    return context


def _assignment(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not SECTION.KEY=VALUE")
    return name.strip(), value.strip()


class Sets(argparse.Action):
    """A flag that is a setting: kept with its name, which is the origin of the value."""

    def __init__(self, option_strings: Any, dest: str, *, setting: str, several: bool = False, **rest: Any) -> None:
        super().__init__(option_strings, dest, default=argparse.SUPPRESS, **rest)
        self.setting = setting
        self.several = several

    def __call__(self, _: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        """Called by argparse."""
        flags = dict(namespace.flags)
        value = self.const if self.nargs == 0 else values
        if self.several:
            value = [*flags.get(self.setting, ("", []))[1], value]
        flags[self.setting] = (option, value)
        namespace.flags = flags
