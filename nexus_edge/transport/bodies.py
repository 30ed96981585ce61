"""Bodies in transit: never more than allowed, never slower than the slowest line that is served, never more at once than fits."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from aiohttp import StreamReader

from nexus_edge.wire.limits import INPUT, KIB, UPLOAD_BYTES_PER_S
from nexus_edge.wire.refusals import Code, Refusal

WINDOW_S: Final = 10.0
"""Over which the least rate of a transfer is measured: lines stall for seconds, and not for longer."""
WINDOW_BYTES: Final = int(UPLOAD_BYTES_PER_S * WINDOW_S)  # what has to move in a window
PIECE: Final = 64 * KIB
"""As much as is encrypted at once, so that nothing holds the loop for long."""
SMALL_BODY: Final = 64 * KIB
"""Not worth counting: every connection there may be has this much."""
BODY_SPACE: Final = 12 * INPUT
"""Bytes of large bodies in memory, received or sent: beside models and provers they must not matter."""


class BodyTooLarge(Exception):
    """More than may come. What came is dropped."""


async def receive(content: StreamReader, limit: int) -> bytes:
    """All of a body. Raises `BodyTooLarge`, `TimeoutError` if it comes too slowly, and `ConnectionError`."""
    body = bytearray()
    while True:
        mark = len(body) + WINDOW_BYTES
        async with asyncio.timeout(WINDOW_S):
            while len(body) < mark:
                try:
                    piece = await content.readany()
                except RuntimeError as gone:  # what aiohttp calls a connection that has ended
                    raise ConnectionResetError(str(gone)) from None
                if not piece:
                    return bytes(body)
                body += piece
                if len(body) > limit:
                    raise BodyTooLarge


def pieces(body: bytes) -> Iterator[memoryview]:
    """A body, in the order in which it is sent."""
    view = memoryview(body)
    return (view[at : at + PIECE] for at in range(0, len(body), PIECE))


class BodySpace:
    """The memory for large bodies, a third of it at most for one prefix: whoever fills that stands in his own way."""

    def __init__(self, total: int = BODY_SPACE) -> None:
        self._total = total
        self._used: Counter[str] = Counter()

    @contextlib.contextmanager
    def held(self, prefix: str, size: int) -> Iterator[None]:
        """Count a body for as long as it is in memory. Raises `Refusal`."""
        if size <= SMALL_BODY:
            yield
            return
        if self._used.total() + size > self._total or self._used[prefix] + size > self._total // 3:
            raise Refusal(Code.BUSY, "too many large bodies at once", retry_ms=1000)
        self._used[prefix] += size
        try:
            yield
        finally:
            self._used[prefix] -= size
            if not self._used[prefix]:
                del self._used[prefix]
