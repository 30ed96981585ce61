"""The demonstration."""

import argparse

from nexus_edge.commands.result import Result


def demo(arguments: argparse.Namespace) -> Result:
    """`nexus-edge demo`."""
    from nexus_edge.demo import demonstrate

    receipt = demonstrate(mdns=not arguments.no_mdns)
    return Result(receipt.data(), receipt.lines())
