"""Multicast DNS on the networks of this machine: announcing, hearing, leaving, and nothing that blocks the loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from blockbuster import blockbuster_ctx

from nexus_edge.discovery import Mdns, MdnsState, PeerDirectory
from nexus_edge.discovery.interfaces import Interface, InterfaceWatch, interfaces
from nexus_edge.discovery.mdns import _senders
from nexus_edge.identity import NodeKey

ME = NodeKey.from_seed(b"\1" * 32).id
PEER = NodeKey.from_seed(b"\2" * 32).id
LAN = Interface("lan", 2, "10.0.0.5", 24, True)
LAN_6 = Interface("lan", 2, "fe80::5", 64, True)
LAN_ULA = Interface("lan", 2, "fd00::5", 64, True)
LOOP = Interface("lo", 1, "127.0.0.1", 8, True)


@contextlib.asynccontextmanager
async def announcing(directory: PeerDirectory, port: int, host: str = "") -> AsyncIterator[Mdns]:
    mdns = Mdns(directory, port, host=host)
    task = asyncio.create_task(mdns.run(), name="mdns")
    try:
        yield mdns
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert mdns.state is MdnsState.OFF


async def until(directory: PeerDirectory, what: Callable[[], bool]) -> None:
    with directory.watch() as changes:
        async with asyncio.timeout(5):
            while not what():
                await anext(changes)


@pytest.mark.asyncio
async def test_two_on_one_machine_hear_each_other_and_the_goodbye() -> None:
    mine, theirs = PeerDirectory(ME, "home"), PeerDirectory(PEER, "home")
    with blockbuster_ctx():
        async with announcing(mine, 7411):
            async with announcing(theirs, 7412):
                await until(mine, lambda: mine.get(PEER) is not None)
                await until(theirs, lambda: theirs.get(ME) is not None)
                found = mine.get(PEER)
                assert found is not None
                assert {address.endpoint.port for address in found.addresses} == {7412}
            await until(mine, lambda: mine.get(PEER) is None)


@pytest.mark.asyncio
async def test_meshes_do_not_hear_each_other() -> None:
    mine, theirs = PeerDirectory(ME, "home"), PeerDirectory(PEER, "work")
    async with announcing(mine, 7411), announcing(theirs, 7412):
        await asyncio.sleep(1.5)
    assert mine.snapshot() == theirs.snapshot() == ()


@pytest.mark.asyncio
async def test_a_port_that_cannot_be_had_is_a_state_with_a_reason() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.bind(("::", 5353))  # exclusively: without SO_REUSEPORT
        async with announcing(PeerDirectory(ME, "home"), 7411) as mdns:
            async with asyncio.timeout(5):
                while mdns.state is MdnsState.STARTING:
                    await asyncio.sleep(0.01)
            assert mdns.state is MdnsState.UNAVAILABLE
            assert "in use" in mdns.problem


@pytest.mark.parametrize(
    ("host", "announced"),
    [
        ("", ["10.0.0.5", "fd00::5", "fe80::5"]),
        ("0.0.0.0", ["10.0.0.5"]),
        ("::", ["fd00::5", "fe80::5"]),
        ("10.0.0.5", ["10.0.0.5"]),
    ],
)
def test_addresses_that_the_server_listens_at_are_announced(host: str, announced: list[str]) -> None:
    mdns = Mdns(PeerDirectory(ME, "home"), 7411, host=host)
    mdns._networks = (LAN_6, LAN_ULA, LAN, LOOP)
    info = mdns._info()
    assert info is not None
    assert info.parsed_addresses() == announced


def test_a_server_on_another_address_announces_nothing() -> None:
    mdns = Mdns(PeerDirectory(ME, "home"), 7411, host="127.0.0.1")
    mdns._networks = (LAN, LOOP)
    assert mdns._info() is None


def test_without_a_network_the_machine_itself_is_one() -> None:
    mdns = Mdns(PeerDirectory(ME, "home"), 7411)
    mdns._networks = (LOOP, Interface("lan", 2, "10.0.0.5", 24, False))
    info = mdns._info()
    assert info is not None
    assert info.parsed_addresses() == ["127.0.0.1"]


def test_multicast_goes_out_once_for_each_family_of_an_interface() -> None:
    twin = Interface("vlan", 3, "fe80::5", 64, True)
    assert _senders([LAN, LAN_ULA, LAN_6]) == ["10.0.0.5", "fe80::5"]
    assert _senders([LAN, LAN_ULA, LAN_6, twin]) == ["10.0.0.5", "fd00::5"]
    assert _senders([]) == []


def test_this_machine_has_a_loopback() -> None:
    assert any(one.is_loopback and one.is_running for one in interfaces())


@pytest.mark.asyncio
async def test_without_a_change_nothing_is_reported() -> None:
    async with InterfaceWatch(poll_s=0.05) as watch:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch.changed(), 0.5)
