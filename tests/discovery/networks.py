"""Two hosts on one switch: network namespaces joined by a bridge, which is in a namespace of its own. Needs root and iproute2."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def ip(*arguments: str) -> None:
    """Run `ip`; what it prints is in the error."""
    import subprocess

    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


@dataclass(frozen=True)
class Switch:
    """A bridge with a port for each host."""

    name: str

    def host(self, letter: str) -> str:
        """The name of a host's namespace."""
        return f"{self.name}-{letter}"

    def unplug(self, letter: str) -> None:
        """Take the switch's end of a host's cable down: that host loses its carrier, the other one sees nothing."""
        ip("-n", self.name, "link", "set", f"to-{letter}", "down")

    def plug(self, letter: str) -> None:
        """And up."""
        ip("-n", self.name, "link", "set", f"to-{letter}", "up")


@contextlib.contextmanager
def switched(addresses: Mapping[str, tuple[str, ...]]) -> Iterator[Switch]:
    """Hosts by letter, each with its addresses (link-local ones of IPv6 come by themselves)."""
    assert shutil.which("ip"), "this test needs `ip`: install iproute2"
    switch = Switch(f"nexus-{os.getpid()}")
    ip("netns", "add", switch.name)
    made = [switch.name]
    try:
        ip("-n", switch.name, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
        ip("-n", switch.name, "link", "set", "bridge", "up")
        for letter, own in addresses.items():
            namespace = switch.host(letter)
            ip("netns", "add", namespace)
            made.append(namespace)
            ip("-n", switch.name, "link", "add", f"to-{letter}", "type", "veth", "peer", "name", "lan", "netns", namespace)
            ip("-n", switch.name, "link", "set", f"to-{letter}", "master", "bridge", "up")
            for address in own:
                ip("-n", namespace, "address", "add", address, "dev", "lan", *(("nodad",) if ":" in address else ()))
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "link", "set", "lan", "up")
        yield switch
    finally:
        for namespace in made:
            ip("netns", "delete", namespace)


@dataclass
class Node:
    """A `tests.discovery.host` in a namespace, and what it said."""

    process: asyncio.subprocess.Process
    started: float
    said: list[dict[str, Any]] = field(default_factory=list)
    errors: bytearray = field(default_factory=bytearray)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, what: Callable[[dict[str, Any]], bool], within_s: float, since: int = 0) -> dict[str, Any]:
        """The first event from number `since` on that is `what`."""
        try:
            async with asyncio.timeout(within_s), self._news:
                while not (found := [event for event in self.said[since:] if what(event)]):
                    await self._news.wait()
                return found[0]
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s; it said {self.said[since:]} and {self.errors.decode()}") from None

    async def read(self) -> None:
        """Take in what it says until it ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._news:
                self.said.append(json.loads(line) | {"heard": time.monotonic() - self.started})
                self._news.notify_all()

    async def read_errors(self) -> None:
        """Take in what goes wrong."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.errors += line


@contextlib.asynccontextmanager
async def node_in(namespace: str | None, seed: int, *options: str) -> AsyncIterator[Node]:
    """Start a node; at the end it is asked to leave, and must do so without an error."""
    inside = () if namespace is None else ("ip", "netns", "exec", namespace)
    process = await asyncio.create_subprocess_exec(
        *inside, sys.executable, "-m", "tests.discovery.host", bytes([seed] * 32).hex(), *options,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    node = Node(process, time.monotonic())
    readers = [asyncio.create_task(node.read()), asyncio.create_task(node.read_errors())]
    try:
        await node.until(lambda event: event["event"] == "start", 20)
        yield node
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)
        assert process.returncode == 0, node.errors.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.gather(*readers)
