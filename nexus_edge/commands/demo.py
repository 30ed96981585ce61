"""The demonstration."""

import argparse

from nexus_edge.commands.result import Result


def demo(_: argparse.Namespace) -> Result:
    """`nexus-edge demo`."""
    from nexus_edge.demo import demonstrate

    receipt = demonstrate()
    return Result(receipt.data(), receipt.lines())
