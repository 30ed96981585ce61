"""A hostile neighbour on the local network: floods, garbage, lies and goodbyes, in real datagrams."""

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from zeroconf import (  # type: ignore[attr-defined]
    DNSAddress,
    DNSOutgoing,
    DNSPointer,
    DNSService,
    DNSText,
)

from nexus_edge.discovery import Endpoint, Mdns, MdnsState, PeerDirectory, Source, State
from nexus_edge.discovery.announcements import INSTANCES, SERVICE, text_of
from nexus_edge.discovery.hints import UNPROVEN
from nexus_edge.discovery.interfaces import Interface, interfaces
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.types import NodeId

ME = NodeKey.from_seed(b"\1" * 32)
PEER = NodeKey.from_seed(b"\2" * 32).id
PORT = 7411
GROUP = ("224.0.0.251", 5353)
RESPONSE = 0x8400
IN, UNIQUE = 1, 0x8001
NAMES = 6_000
MEMORY_KIB = 8 * 1024
"""What a flood may cost; as much as it sends, 42 MB, if nothing were let go."""


def network() -> Interface:
    """Where the agent sends too: a network, or with none the machine itself."""
    ready = sorted(
        (one for one in interfaces() if one.is_running and ":" not in one.address), key=lambda one: (one.is_loopback, one.address)
    )
    return ready[0]


@pytest.fixture
def hostile() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(network().address))
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        yield made


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[Mdns, PeerDirectory]]:
    directory = PeerDirectory(ME.id, "home")
    mdns = Mdns(directory, PORT)
    task = asyncio.create_task(mdns.run(), name="mdns")
    try:
        async with asyncio.timeout(5):
            while mdns.state is not MdnsState.ON:
                await asyncio.sleep(0.01)
        yield mdns, directory
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def announcement(
    name: str,
    node: NodeId,
    address: str,
    *,
    mesh: str = "home",
    port: int = PORT,
    ttl: int = 120,
    padding: int = 0,
    text: bytes | None = None,
) -> list[bytes]:
    """Everything an instance is: one datagram, unless the text is padded."""
    values = "".join(chr(len(f"{key}={value}")) + f"{key}={value}" for key, value in text_of(node, mesh).items()).encode()
    values += (b"\xff" + bytes(255)) * (padding // 256)
    out = DNSOutgoing(RESPONSE)
    server = f"{name}.local."
    out.add_answer_at_time(DNSPointer(SERVICE, 12, IN, ttl, f"{name}.{SERVICE}"), 0)
    out.add_answer_at_time(DNSService(f"{name}.{SERVICE}", 33, UNIQUE, ttl, 0, 0, port, server), 0)
    out.add_answer_at_time(DNSText(f"{name}.{SERVICE}", 16, UNIQUE, ttl, values if text is None else text), 0)
    out.add_answer_at_time(DNSAddress(server, 1, UNIQUE, ttl, socket.inet_aton(address)), 0)
    return [bytes(packet) for packet in out.packets()]


def say(hostile: socket.socket, packets: list[bytes]) -> None:
    """To everyone on the network."""
    for packet in packets:
        hostile.sendto(packet, GROUP)


def neighbour(number: int) -> str:
    """An address on the same network."""
    first = int.from_bytes(socket.inet_aton(str(network().network.network_address)), "big")
    return socket.inet_ntoa((first + 3 + number % 200).to_bytes(4, "big"))


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


async def until_known(directory: PeerDirectory, node: NodeId, hostile: socket.socket, packets: list[bytes]) -> None:
    """Announce until it is heard: the kernel drops datagrams under a flood, and announcements are repeated for that reason."""
    async with asyncio.timeout(5):
        while directory.get(node) is None:
            say(hostile, packets)
            await asyncio.sleep(0.1)


async def flood(hostile: socket.socket, chance: random.Random, names: int) -> float:
    """Announce invented nodes with large records, as fast as they are read. Returns the longest the loop was busy with one, in seconds."""
    slowest = 0.0
    for number in range(names):
        node = NodeId(chance.randbytes(32))
        say(hostile, announcement(short_id(node), node, neighbour(number), padding=7000))
        for _ in range(4):  # the loop reads one datagram of a socket at a time
            started = time.monotonic()
            await asyncio.sleep(0)
            slowest = max(slowest, time.monotonic() - started)
    return slowest


@pytest.mark.asyncio
async def test_thousands_of_names_cost_bounded_memory_and_an_honest_one_is_still_heard(hostile: socket.socket) -> None:
    async with listening() as (mdns, directory):
        chance = random.Random(1)
        await flood(hostile, chance, 500)  # what the allocator takes once is no leak
        before = resident_kib()
        slowest = await flood(hostile, chance, NAMES)
        assert resident_kib() - before < MEMORY_KIB
        assert slowest < 0.25
        assert len(mdns._heard) <= INSTANCES
        assert len(directory.snapshot()) + len(directory.unidentified()) <= UNPROVEN
        await until_known(directory, PEER, hostile, announcement(short_id(PEER), PEER, neighbour(7)))


@pytest.mark.asyncio
async def test_garbage_is_survived(hostile: socket.socket) -> None:
    chance = random.Random(2)
    good = announcement(short_id(PEER), PEER, neighbour(7))
    async with listening() as (_, directory):
        for _number in range(2000):
            damaged = bytearray(good[0])
            for _ in range(chance.randrange(1, 8)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            hostile.sendto(bytes(damaged[: chance.randrange(12, len(damaged))]), GROUP)
            hostile.sendto(chance.randbytes(chance.randrange(1, 1200)), GROUP)
            hostile.sendto(struct.pack(">HHHHHH", 0, RESPONSE, 0, 65535, 65535, 65535) + chance.randbytes(300), GROUP)
            await asyncio.sleep(0)
        await until_known(directory, PEER, hostile, good)


@pytest.mark.asyncio
async def test_nobody_is_dialled_for_a_neighbour_outside_the_network(hostile: socket.socket) -> None:
    far = NodeKey.from_seed(b"\3" * 32).id
    async with listening() as (_, directory):
        for address in ("8.8.8.8", "224.0.0.1", "0.0.0.0", "255.255.255.255"):
            say(hostile, announcement(short_id(far), far, address))
        say(hostile, announcement(short_id(far), far, neighbour(7), port=0))
        say(hostile, announcement(short_id(far), far, neighbour(7), mesh="work"))
        await until_known(directory, PEER, hostile, announcement(short_id(PEER), PEER, neighbour(7)))
        assert [peer.id for peer in directory.snapshot()] == [PEER]
        assert directory.unidentified() == ()


@pytest.mark.asyncio
async def test_a_forged_goodbye_takes_nobody_down(hostile: socket.socket) -> None:
    async with listening() as (_, directory):
        packet = announcement(short_id(PEER), PEER, neighbour(7))
        await until_known(directory, PEER, hostile, packet)
        endpoint = Endpoint(neighbour(7), PORT)
        for _ in range(2):
            directory.report_success(PEER, 1.0, endpoint=endpoint)
        with directory.watch() as changes:
            say(hostile, announcement(short_id(PEER), PEER, neighbour(7), ttl=0))
            await asyncio.wait_for(anext(changes), 5)
        found = directory.get(PEER)
        assert found is not None
        assert found.state is State.UP
        assert Source.MDNS not in found.sources
        assert [address.endpoint for address in found.addresses] == [endpoint]


@pytest.mark.asyncio
async def test_one_who_claims_our_name_does_not_silence_us(hostile: socket.socket) -> None:
    """The name is the first thing another implementation would defend; here it is taken for what it is, a claim."""
    stop = asyncio.Event()

    async def claim() -> None:
        while not stop.is_set():
            say(hostile, announcement(short_id(ME.id), PEER, neighbour(9)))
            await asyncio.sleep(0.05)

    claiming = asyncio.create_task(claim())
    async with listening() as (mdns, _):
        assert mdns.state is MdnsState.ON
        assert mdns.problem == ""
    stop.set()
    await claiming
