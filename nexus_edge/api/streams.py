"""Streams of lines to those who watch: each gets the newest state there is, never a queue of old ones; one that does not read is dropped."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from nexus_edge.api.errors import problem
from nexus_edge.api.models import View
from nexus_edge.api.routes import LINES
from nexus_edge.errors import NexusEdgeError

INTERVAL_S: Final = 1.0
"""Between snapshots: people see no difference below it."""
WATCH_S: Final = 0.2
"""Between looks at one job: a progress bar moves smoothly."""
SLOW_READER_S: Final = 5.0
"""How long a line may wait for a reader whose buffers are full, some hundred kilobytes."""
WATCHERS: Final = 16
"""Streams at one time: people's terminals, not a service."""

log = structlog.get_logger("api")


class Snapshots:
    """One producer for all who watch, which works only while somebody does."""

    def __init__(self, source: Callable[[], Awaitable[View]], interval_s: float = INTERVAL_S) -> None:
        self._source = source
        self._interval_s = interval_s
        self._changed = asyncio.Condition()
        self._line = b""
        self._number = 0
        self._watchers = 0
        self._producer: asyncio.Task[None] | None = None

    async def lines(self) -> AsyncGenerator[bytes]:
        """The newest line, and then each newer one there is when the last was taken."""
        self._watchers += 1
        if self._producer is None:
            self._producer = asyncio.create_task(self._produce(), name="snapshots")
            self._number = 0
        seen = 0
        try:
            while True:
                async with self._changed:
                    while self._number <= seen:
                        await self._changed.wait()
                    seen, line = self._number, self._line
                yield line
        finally:
            self._watchers -= 1
            if self._watchers == 0:
                self.stop()

    def stop(self) -> None:
        """End the producer."""
        if self._producer is not None:
            self._producer.cancel()
            self._producer = None

    async def _produce(self) -> None:
        due = time.monotonic()
        while True:
            line = await line_of(self._source)
            async with self._changed:
                self._line, self._number = line, self._number + 1
                self._changed.notify_all()
            due = max(due + self._interval_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())


async def line_of(source: Callable[[], Awaitable[View]]) -> bytes:
    """One line: what the source gives, or why it does not."""
    try:
        return (await source()).model_dump_json().encode() + b"\n"
    except NexusEdgeError as failed:
        said, _ = problem(failed)
    return b'{"error":' + said.model_dump_json().encode() + b"}\n"


async def changes(
    source: Callable[[], Awaitable[View]], ended: Callable[[bytes], bool], interval_s: float = WATCH_S
) -> AsyncGenerator[bytes]:
    """Lines of a source when they differ from the last, until one ends it."""
    last = b""
    while True:
        line = await line_of(source)
        if line != last:
            yield line
        if ended(line):
            return
        last = line
        await asyncio.sleep(interval_s)


async def send(request: web.Request, lines: AsyncGenerator[bytes], slow_s: float = SLOW_READER_S) -> web.StreamResponse:
    """Write lines to whoever asked, until there are no more, or it leaves, or it does not read."""
    response = web.StreamResponse(headers={"Content-Type": LINES, "Cache-Control": "no-store"})
    try:
        await response.prepare(request)
        async for line in lines:
            async with asyncio.timeout(slow_s):
                await response.write(line)
        await response.write_eof()
    except TimeoutError:
        log.warning("dropped a watcher", why=f"it has not read for {slow_s:.0f} s")
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        pass  # it left
    return response
