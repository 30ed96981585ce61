"""`nexus-edge credit`: what this node lends, and what its owner settles with others.

What changes the ledger goes through the agent if one runs, and else into the ledger itself: an entry then leaves at the next start.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from nexus_edge.commands.asking import sockets_of
from nexus_edge.commands.ledger import agent_settings, book_data, book_lines, find_peer, node_key, partners, show_credits
from nexus_edge.commands.result import Result
from nexus_edge.config.quantities import CREDITS, parse
from nexus_edge.errors import UsageError
from nexus_edge.identity import format_node_id, short_id
from nexus_edge.ledger import InUse, Ledger, Transaction
from nexus_edge.ledger.deeds import Deed, What, carry_out
from nexus_edge.ledger.looking import look
from nexus_edge.ledger.policy import credit_policy
from nexus_edge.types import MicroCredits, NodeId

LIMIT: Final = 1 << 40
"""What one amount of the protocol can hold."""


def credit_grant(arguments: argparse.Namespace) -> Result:
    """`nexus-edge credit grant PEER AMOUNT`: lend a peer so much, whatever it did. 0 takes it back."""
    amount, peer = _amount(arguments.amount), _peer(arguments)

    async def by_agent(agent: Any) -> None:
        from nexus_edge.api.models import GrantRequest

        await agent.grant(GrantRequest(peer=format_node_id(peer), amount_ucr=amount))

    _, through = asyncio.run(_change(arguments, partial(_grant, peer, amount), by_agent))
    data = {"peer": format_node_id(peer), "granted_ucr": amount, "through": through}
    return Result(data, [f"{short_id(peer)} may draw {show_credits(amount)} cr more than its work allows"])


def credit_list(arguments: argparse.Namespace) -> Result:
    """`nexus-edge credit list`: how we stand with everyone, and what we lend."""
    settings, key = agent_settings(arguments), node_key(arguments)
    books = look(settings.paths.ledger, key.id, lambda reader: reader.books(), credit_policy(settings))
    return Result({"books": [book_data(one) for one in books]}, book_lines(books))


def credit_expect(arguments: argparse.Namespace) -> Result:
    """`nexus-edge credit expect PEER AMOUNT --for INVOICE`: we paid a peer elsewhere, and take its entry that says so."""
    return _carry_out(arguments, What.EXPECT, arguments.invoice, "an entry of {amount} cr is taken from {peer}, once it has signed one")


def credit_prepay(arguments: argparse.Namespace) -> Result:
    """`nexus-edge credit prepay PEER AMOUNT --for INVOICE`: a peer paid us elsewhere, and we owe it work."""
    return _carry_out(arguments, What.PREPAY, arguments.invoice, "we owe {peer} {amount} cr more")


def credit_refund(arguments: argparse.Namespace) -> Result:
    """`nexus-edge credit refund PEER JOB [AMOUNT]`: give back what a peer paid for a job."""
    return _carry_out(arguments, What.REFUND, arguments.job, "{peer} gets {amount} cr back")


def credit_write_off(arguments: argparse.Namespace) -> Result:
    """`nexus-edge credit write-off PEER [AMOUNT]`: give up what a peer owes. Its own book stays as it is."""
    return _carry_out(arguments, What.WRITE_OFF, "", "{amount} cr of {peer} are given up")


def _carry_out(arguments: argparse.Namespace, what: What, about: str, told: str) -> Result:
    amount = None if arguments.amount is None else _amount(arguments.amount)
    if amount == 0:
        raise UsageError("wrong usage", "an amount of nothing changes nothing")
    deed = Deed(what, _peer(arguments), amount, about)

    async def by_agent(agent: Any) -> tuple[MicroCredits, str | None, bool]:
        from nexus_edge.api.models import DeedRequest

        seen = await agent.deed(DeedRequest(what=what.value, peer=format_node_id(deed.peer), amount_ucr=amount, about=about))
        return seen.amount_ucr, seen.entry, seen.again

    def by_hand(transaction: Transaction) -> tuple[MicroCredits, str | None, bool]:
        done = carry_out(deed, transaction)
        return done.amount, None if done.entry is None else done.entry.hex(), done.again

    (moved, entry, again), through = asyncio.run(_change(arguments, by_hand, by_agent))
    data = {"what": what.value, "peer": format_node_id(deed.peer), "amount_ucr": moved, "entry": entry, "again": again, "through": through}
    line = told.format(amount=show_credits(moved), peer=short_id(deed.peer))
    return Result(data, [f"{line}: that is on record already, and nothing has changed" if again else line])


async def _change(
    arguments: argparse.Namespace, by_hand: Callable[[Transaction], Any], by_agent: Callable[[Any], Awaitable[Any]]
) -> tuple[Any, str]:
    """Change the ledger, or have the agent do it that has it open; what came of it, and through whom."""
    settings = agent_settings(arguments)
    try:
        ledger = await Ledger.open(settings.paths.ledger, node_key(arguments), credit_policy(settings))
    except InUse:
        from nexus_edge.api.client import AdminClient

        async with AdminClient(sockets_of(arguments)) as agent:
            return await by_agent(agent), "the agent"
    try:
        return await ledger.transact("by hand", by_hand), "the ledger"
    finally:
        await ledger.close()


def _grant(peer: NodeId, amount: MicroCredits, transaction: Transaction) -> None:
    transaction.grant(peer, amount)


def _peer(arguments: argparse.Namespace) -> NodeId:
    return find_peer(arguments.peer, partners(agent_settings(arguments), node_key(arguments)))


def _amount(text: str) -> MicroCredits:
    """`5`, `0.5 cr` or `300 ucr`."""
    try:
        amount = parse(text if text.strip().endswith("cr") else f"{text} cr", CREDITS)
    except ValueError as wrong:
        raise UsageError("wrong usage", str(wrong), "an amount is written 5, '0.5 cr' or '300 ucr'") from None
    if not isinstance(amount, int) or not 0 <= amount <= LIMIT:
        raise UsageError("wrong usage", f"an amount is at most {show_credits(LIMIT)} credits")
    return MicroCredits(amount)
