"""Preparing a model that a peer brings: to compile it and to commit to its weights is work that nobody pays, up to a minute of it.

So it is rationed for nodes without a line of their own, as leases that come to nothing are: one at a time, and so many for each address
prefix, since names cost nothing. What was made is kept, and what could not be made is not tried again at once: see `ModelLibrary.upload`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from nexus_edge.transport import Caller
from nexus_edge.transport.rates import Rates
from nexus_edge.wire.refusals import Code, Refusal

MODELS: Final = 4
MODELS_PER_S: Final = 1 / 300
"""Models of strangers at one prefix: so many, and then one in five minutes. At a minute each that is a fifth of one child's time."""
TURN_RETRY_MS: Final = 5000
"""Most models take a second or two."""


class Rations:
    """Turns at preparing."""

    def __init__(self) -> None:
        self._rates = Rates(MODELS_PER_S, MODELS)
        self._busy = False

    @contextmanager
    def turn(self, caller: Caller, line: int) -> Iterator[None]:
        """While a model is prepared for a caller, who has such a line of its own. Raises a `busy` refusal."""
        if line:
            yield
            return
        if self._busy:
            raise Refusal(Code.BUSY, "the model of another node that is new here is being prepared", retry_ms=TURN_RETRY_MS)
        wait = self._rates.take(caller.prefix)
        if wait:
            why = "too many models were prepared for you and others at your address who are new here"
            raise Refusal(Code.BUSY, why, retry_ms=int(1000 * wait) + 1)
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
