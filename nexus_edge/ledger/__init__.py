"""What a node writes down: signed objects, events, and the money between it and each peer, in SQLite.

Received bytes are the truth; everything else is a projection that is compared with them.
"""

from nexus_edge.ledger.blobs import BlobStore
from nexus_edge.ledger.credit import CreditPolicy
from nexus_edge.ledger.errors import Damaged, DiskFull, EntryRefused, NoCredit, SpendLimit, Unsynchronised
from nexus_edge.ledger.ledger import Ledger
from nexus_edge.ledger.reading import Book, Event, Line, Reader
from nexus_edge.ledger.transactions import Transaction

__all__ = [
    "BlobStore",
    "Book",
    "CreditPolicy",
    "Damaged",
    "DiskFull",
    "EntryRefused",
    "Event",
    "Ledger",
    "Line",
    "NoCredit",
    "Reader",
    "SpendLimit",
    "Transaction",
    "Unsynchronised",
]
