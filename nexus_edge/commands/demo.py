"""The demonstration."""

import argparse
from typing import TYPE_CHECKING

from nexus_edge.commands.result import Result
from nexus_edge.errors import NexusEdgeError, VerifierFailed
from nexus_edge.units import NOT_VERIFIED

if TYPE_CHECKING:
    from nexus_edge.demo import Receipt


def demo(arguments: argparse.Namespace) -> Result:
    """`nexus-edge demo`."""
    from nexus_edge.demo import demonstrate

    try:
        receipt = demonstrate(mdns=not arguments.no_mdns)
    except NexusEdgeError as failed:
        return Result({"verified": False}, [NOT_VERIFIED], failed)
    return Result(receipt.data(), receipt.lines(arguments.built), failure(receipt))


def failure(receipt: "Receipt") -> NexusEdgeError | None:
    """What went wrong, although there is a receipt. A forgery that passes is the worst that can happen here."""
    if not receipt.forgery_refused:
        return VerifierFailed("a forged proof was accepted", receipt.forgery_reason, "do not trust this build: please report it")
    return None if receipt.verified else VerifierFailed("the answer is not verified", "see the receipt")
