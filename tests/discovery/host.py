"""A node as far as finding others goes, in a process of its own: server, client, directory, multicast DNS and prober are the real ones.

`python -m tests.discovery.host SEED [--probe-every S]` prints a line of JSON for each change of a peer, and leaves with a goodbye on SIGTERM.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time

import structlog

from nexus_edge.discovery import Mdns, PeerDirectory, Prober
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.transport import Answering, PeerClient, PeerServer
from nexus_edge.transport.addresses import Caller
from nexus_edge.types import Digest, UnixMs
from nexus_edge.wire.messages import PeersAnswer, PeersRequest
from nexus_edge.wire.objects import NodeRecord
from nexus_edge.wire.signing import Signed, sign


class Host:
    """Answers for its record and its peers."""

    def __init__(self, key: NodeKey, directory: PeerDirectory) -> None:
        self._key = key
        self._directory = directory

    async def node(self) -> Signed[NodeRecord]:
        now = time.time_ns() // 1_000_000
        return sign(
            self._key,
            NodeRecord(
                iss=self._key.id, at=UnixMs(now), seq=now, exp=UnixMs(now + 3_600_000), mesh=self._directory.mesh, proto=(1,), addrs=(), udp=0,
                name=short_id(self._key.id), sw="test", caps=Digest(bytes(32)),
            ),
        )  # fmt: skip

    async def peers(self, caller: Caller, request: PeersRequest) -> PeersAnswer:  # noqa: ARG002
        return PeersAnswer(tuple(record.to_bytes() for record in self._directory.sample(request.have, 32)))


async def main(seed: str, mesh: str, probe_every_s: float) -> None:
    started = time.monotonic()
    key = NodeKey.from_seed(bytes.fromhex(seed))
    directory = PeerDirectory(key.id, mesh, probe_every_s=probe_every_s)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with PeerClient(key) as client, PeerClient(key) as probing:
        server = PeerServer(key, Answering(Host(key, directory), client))  # type: ignore[arg-type]  # nobody asks for the rest
        await server.start("", 0)
        mdns = Mdns(directory, server.port)
        tasks = [
            asyncio.create_task(mdns.run(), name="mdns"),
            asyncio.create_task(Prober(directory, probing, server.port).run(), name="prober"),
            asyncio.create_task(report(directory, started), name="report"),
        ]
        say(event="start", id=short_id(key.id), port=server.port)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()
        for result in results:
            if isinstance(result, Exception):
                raise result
        say(event="stop")


async def report(directory: PeerDirectory, started: float) -> None:
    with directory.watch() as changes:
        async for ids in changes:
            for node in ids:
                if (peer := directory.get(node)) is not None:
                    say(
                        event="peer",
                        peer=short_id(node),
                        state=peer.state.value,
                        reach=peer.reach,
                        rtt_ms=peer.rtt_ms,
                        skew_ms=peer.skew_ms,
                        at=[str(address.endpoint) for address in peer.addresses],
                        found_by=peer.found_by.value,
                        problem=peer.problem,
                        next_probe_s=peer.reachability.probe_at - time.monotonic(),
                        after_s=round(time.monotonic() - started, 3),
                    )


def say(**event: object) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("seed")
    parser.add_argument("--mesh", default="")
    parser.add_argument("--probe-every", type=float, default=15.0)
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(arguments.seed, arguments.mesh, arguments.probe_every))
