"""How a command finds the agent that it asks."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nexus_edge.config import Loaded, load


def settings_of(arguments: argparse.Namespace) -> Loaded:
    """The settings in force for a command. Raises `ConfigError`."""
    return load(file=arguments.config, flags=flags_of(arguments))


def flags_of(arguments: argparse.Namespace) -> Mapping[str, tuple[str, Any]]:
    """Settings on the command line: of each its flag and value. A flag of its own comes before `--set`."""
    flags: Mapping[str, tuple[str, Any]] = arguments.flags
    return {name: ("--set", value) for name, value in arguments.set} | dict(flags)


def sockets_of(arguments: argparse.Namespace) -> Sequence[Path]:
    """Where the agent may answer: commands on the books have no option of their own for that."""
    named: Path | None = getattr(arguments, "socket", None)
    return (named.absolute(),) if named is not None else settings_of(arguments).settings.paths.sockets
