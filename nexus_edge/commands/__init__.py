"""What the commands of `nexus-edge` do: files in, files out, figures for a person or a script."""

import argparse

from nexus_edge.commands.models import infer, model_commit, model_import, model_inspect
from nexus_edge.commands.openings import commit_command, opening_inspect, opening_share
from nexus_edge.commands.private import model_link, model_register, model_verify_link, model_verify_registration
from nexus_edge.commands.proving import prove_command, verify_command
from nexus_edge.commands.result import Result

__all__ = [
    "Result",
    "commit_command",
    "demo",
    "infer",
    "model_commit",
    "model_import",
    "model_inspect",
    "model_link",
    "model_register",
    "model_verify_link",
    "model_verify_registration",
    "opening_inspect",
    "opening_share",
    "prove_command",
    "verify_command",
]


def demo(_: argparse.Namespace) -> Result:
    """`nexus-edge demo`."""
    from nexus_edge.demo import demonstrate

    receipt = demonstrate()
    return Result(receipt.data(), receipt.lines())
