"""What owners settle between themselves, and have their nodes write down: prepayments, refunds, debts given up."""

from dataclasses import dataclass
from enum import StrEnum

from nexus_edge.errors import LedgerError, UsageError
from nexus_edge.ledger.reading import Reader
from nexus_edge.ledger.transactions import Transaction
from nexus_edge.types import Digest, MicroCredits, NodeId
from nexus_edge.wire.digests import invoice_reference
from nexus_edge.wire.objects import Entry


class What(StrEnum):
    """Kinds of deeds."""

    EXPECT = "expect"
    """We paid a peer elsewhere: take its entry that says so."""
    PREPAY = "prepay"
    """A peer paid us elsewhere: sign that we owe it."""
    REFUND = "refund"
    """Give back what a peer paid for a job, or a part of it."""
    WRITE_OFF = "write-off"
    """Give up what a peer owes, or a part of it."""


@dataclass(frozen=True)
class Deed:
    """One of them."""

    what: What
    peer: NodeId
    amount: MicroCredits | None
    """None: all there is to refund or to write off."""
    about: str = ""
    """The invoice, in words that both owners use; of a refund the job, by its id or the beginning of it."""


@dataclass(frozen=True)
class Done:
    """What was written."""

    amount: MicroCredits
    entry: Digest | None
    """What we signed, if we owe something now: it reaches the peer as soon as that is up."""
    again: bool = False
    """Whether that was signed before, for this invoice or job: nothing has changed."""


def carry_out(deed: Deed, transaction: Transaction) -> Done:
    """Write it down. Raises `UsageError` for one that makes no sense, and `LedgerError`."""
    newest = transaction.last_entry(transaction.own, deed.peer)
    match deed.what:
        case What.EXPECT | What.PREPAY:
            if deed.amount is None or not deed.about.strip():
                raise UsageError("wrong usage", f"to {deed.what.value} takes an amount and what it is for")
            reference = invoice_reference(deed.about)
            if deed.what is What.EXPECT:
                transaction.expect(deed.peer, deed.amount, reference)
                return Done(deed.amount, None)
            entry = transaction.prepaid(deed.peer, deed.amount, reference)
        case What.REFUND:
            paid = _paid(transaction, deed.peer, deed.about)
            entry = transaction.refund(deed.peer, paid.amt if deed.amount is None else deed.amount, paid.ref)
        case What.WRITE_OFF:
            amount = MicroCredits(transaction.book(deed.peer).exposure) if deed.amount is None else deed.amount
            transaction.write_off(deed.peer, amount)
            return Done(amount, None)
    return Done(entry.object.amt, entry.id, again=newest == transaction.last_entry(transaction.own, deed.peer))


def _paid(reader: Reader, peer: NodeId, job: str) -> Entry:
    """The entry by which a peer paid for a job of its own."""
    wanted = job.removeprefix("j-").lower()
    paid = {
        one.job: one.entry for one in reader.movements(-1, peer=peer) if one.entry is not None and one.job is not None and one.amount > 0
    }
    found = [entry for name, entry in paid.items() if wanted and name.hex().startswith(wanted)]
    if len(found) != 1:
        why = "several jobs begin so" if found else "the peer paid for no such job"
        raise LedgerError("there is nothing to refund", f"{job!r}: {why}", "`nexus-edge ledger list --peer` shows what it paid for")
    return reader.object(found[0]).of(Entry).object
