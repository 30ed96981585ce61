"""What a node writes down: signed objects, events, and the money between it and each peer, in SQLite.

Received bytes and own events are the truth; everything else is a projection, which can be made again from them and is compared.
docs/ledger.md tells it from the beginning.
"""

from nexus_edge.ledger.backup import Restored
from nexus_edge.ledger.backup import restore as restore_backup
from nexus_edge.ledger.blobs import BlobStore
from nexus_edge.ledger.credit import CreditPolicy, Group
from nexus_edge.ledger.errors import Damaged, DiskFull, EntryRefused, InUse, NoCredit, SpendLimit, Unsynchronised
from nexus_edge.ledger.history import Movement
from nexus_edge.ledger.ledger import Ledger
from nexus_edge.ledger.members import Member
from nexus_edge.ledger.reading import Account, Book, Event, Line, Reader
from nexus_edge.ledger.rotation import Rotation
from nexus_edge.ledger.transactions import Transaction

__all__ = [
    "Account",
    "BlobStore",
    "Book",
    "CreditPolicy",
    "Damaged",
    "DiskFull",
    "EntryRefused",
    "Event",
    "Group",
    "InUse",
    "Ledger",
    "Line",
    "Member",
    "Movement",
    "NoCredit",
    "Reader",
    "Restored",
    "Rotation",
    "SpendLimit",
    "Transaction",
    "Unsynchronised",
    "restore_backup",
]
