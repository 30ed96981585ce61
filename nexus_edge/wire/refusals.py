"""Refusals: a code is a contract between programs, the text is for people."""

import unicodedata
from enum import StrEnum

from nexus_edge.errors import NexusEdgeError
from nexus_edge.wire.messages import RefusalBody
from nexus_edge.wire.objects import Entry
from nexus_edge.wire.signing import Signed


class Code(StrEnum):
    """Every reason for which a node refuses a request."""

    BUSY = "busy"
    RATE = "rate"
    NO_CREDIT = "no-credit"
    QUOTE_EXPIRED = "quote-expired"
    CONFLICT = "conflict"
    LEASE_ENDED = "lease-ended"
    MODEL_MISSING = "model-missing"
    MODEL_REFUSED = "model-refused"
    MEMORY = "memory"
    PRICE = "price"
    TOO_LARGE = "too-large"
    BAD_OBJECT = "bad-object"
    BAD_INPUT = "bad-input"
    NOT_YOURS = "not-yours"
    EXCLUDED = "excluded"
    VERSION = "version"
    DRAINING = "draining"
    NOT_FOUND = "not-found"
    TIMEOUT = "timeout"
    INTERNAL = "internal"
    GAP = "gap"
    REGRESS = "regress"
    PAID = "paid"

    @property
    def status(self) -> int:
        """The status of HTTP."""
        return _STATUS.get(self, 409)


_STATUS = {
    Code.BUSY: 503,
    Code.RATE: 429,
    Code.NO_CREDIT: 402,
    Code.LEASE_ENDED: 410,
    Code.TOO_LARGE: 413,
    Code.BAD_OBJECT: 400,
    Code.BAD_INPUT: 422,
    Code.NOT_YOURS: 403,
    Code.EXCLUDED: 403,
    Code.VERSION: 426,
    Code.DRAINING: 503,
    Code.NOT_FOUND: 404,
    Code.TIMEOUT: 408,
    Code.INTERNAL: 500,
}
"""What is not here is 409: it conflicts with how things stand, and asking again as it is will not help."""


class Refusal(NexusEdgeError):
    """A request is refused. Raised by handlers, sent as a `RefusalBody`, and raised again by the client of the peer that asked."""

    def __init__(
        self, code: Code, text: str, *, retry_ms: int | None = None, last: Signed[Entry] | None = None, room: int | None = None
    ) -> None:
        super().__init__(f"refused ({code.value})", text)
        self.code = code
        self.text = text
        self.retry_ms = retry_ms
        self.last = last
        self.room = room

    def body(self) -> RefusalBody:
        """What is sent."""
        last = None if self.last is None else self.last.to_bytes()
        return RefusalBody(self.code.value, clipped(self.text, 200), self.retry_ms, last, self.room)


def clipped(text: str, limit: int) -> str:
    """The longest beginning within so many bytes, in the form that texts on the wire have."""
    shown = unicodedata.normalize("NFC", "".join(character if character.isprintable() else " " for character in text))
    return shown.encode(errors="replace")[:limit].decode(errors="ignore")
