"""All children of this machine: one a device, each with one task at a time."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from nexus_edge.compute.errors import ChildFailed, Failure
from nexus_edge.compute.machine import Device
from nexus_edge.compute.process import Answer, Child, Progress, Task


class Pool:
    """Gives each task to a free child: to one that did the same kind of work last, if there is one, since it may have kept what that needs."""

    def __init__(self, devices: Sequence[Device], *, child: Callable[[Device], Child] | None = None) -> None:
        make = child or (lambda device: Child(device.id, threads=device.cores))
        self.devices = tuple(devices)
        self._children = [make(device) for device in self.devices]
        self._free = list(self._children)
        self._closed = False
        self._last: dict[Child, bytes] = {}
        self._idle = asyncio.Semaphore(len(self._children))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    @property
    def slots(self) -> int:
        """How many tasks run at once."""
        return len(self._children)

    @property
    def busy(self) -> int:
        """How many run now."""
        return len(self._children) - len(self._free)

    @property
    def pids(self) -> Mapping[str, int | None]:
        """The process of each device, if it runs."""
        return {child.name: child.pid for child in self._children}

    async def warm(self) -> None:
        """Start every child, so that the first job does not wait for it. Raises `ChildFailed`."""
        for child in self._children:
            await child.start()

    async def run(self, task: Task, progress: Progress | None = None, *, kind: bytes = b"") -> Answer:
        """Wait for a free child, and do the task there. Raises what `Child.run` raises. The deadline begins when the child does."""
        await self._idle.acquire()
        if self._closed:
            self._idle.release()
            raise ChildFailed(Failure.CANCELLED, "this node is stopping")
        child = next((one for one in self._free if self._last.get(one) == kind), self._free[-1])
        self._free.remove(child)
        self._last[child] = kind
        try:
            return await child.run(task, progress)
        finally:
            if child.settling is None:
                self._release(child)
            else:
                child.settling.add_done_callback(lambda _: self._release(child))

    async def close(self) -> None:
        """End every child. What waits for one fails."""
        self._closed = True
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(child.stop(), name=f"child {child.name}: stop")

    def _release(self, child: Child) -> None:
        self._free.append(child)
        self._idle.release()
