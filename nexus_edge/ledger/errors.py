"""How the ledger refuses and fails."""

from nexus_edge.errors import LedgerError
from nexus_edge.types import MicroCredits
from nexus_edge.wire.objects import Entry
from nexus_edge.wire.refusals import Code
from nexus_edge.wire.signing import Signed


class DiskFull(LedgerError):
    """The ledger cannot write: nothing of the transition was written, and with space it goes on by itself."""


class Damaged(LedgerError):
    """The file is not a sound ledger. Nothing was changed."""


class InUse(LedgerError):
    """Another process has the ledger open."""


class SpendLimit(LedgerError):
    """The owner's limits leave less than the job costs."""


class NoCredit(LedgerError):
    """We lend the requester no more than `room`, and it asked for what costs `price`, of which `drawn` is of the newcomers' bucket."""

    def __init__(self, price: MicroCredits, room: MicroCredits, drawn: int) -> None:
        # What we owe it is drawn before anything is lent, so that no bound of ours can be in the way.
        earn = f"you can have it once you have earned {price - room} from this node by work for it, or by a grant of its owner"
        super().__init__("no credit", f"you may draw {room} micro-credits more, the job costs {price}", earn)
        self.room = room
        self.drawn = drawn


class EntryRefused(LedgerError):
    """A debtor's entry does not follow; `last` is the last of its entries that we hold."""

    def __init__(self, code: Code, why: str, last: Signed[Entry] | None) -> None:
        super().__init__("the entry is refused", why)
        self.code = code
        self.last = last


class Unsynchronised(LedgerError):
    """The ledger was restored, and nothing is issued to a peer before its book has been compared with ours."""
