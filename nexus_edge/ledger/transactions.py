"""What a transition may do. All of one transition is written, or nothing."""

from nexus_edge.ledger.lending import Creditor
from nexus_edge.ledger.owing import Debtor


class Transaction(Debtor, Creditor):
    """Both sides of every account: we owe, and are owed."""
