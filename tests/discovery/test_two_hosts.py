"""How discovery alone, on two hosts of a switch, loses a peer and finds it again; `test_two_agents` has whole agents there."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.discovery.networks import Switch, node_in, switched

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are made by root"),
    pytest.mark.timeout(150),
]

IPV4 = {"a": ("10.77.0.1/24",), "b": ("10.77.0.2/24",)}
IPV6 = {"a": (), "b": ()}
ALONE_S = 5.5
"""Shorter than the fourth wait between probes, 6 to 10 s; a link that is back takes a second and a half."""
BOTH = {"a": ("10.77.0.1/24", "fd77::1/64"), "b": ("10.77.0.2/24", "fd77::2/64")}


@pytest.fixture
def switch() -> Iterator[Switch]:
    with switched(BOTH) as made:
        yield made


@pytest.fixture
def ipv4_only() -> Iterator[Switch]:
    with switched(IPV4) as made:
        yield made


@pytest.fixture
def link_local() -> Iterator[Switch]:
    with switched(IPV6) as made:
        yield made


def is_peer(state: str, reach: str = "") -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == "peer" and event["state"] == state and event["reach"].startswith(reach)


@pytest.mark.asyncio
async def test_hosts_find_lose_and_find_each_other(switch: Switch) -> None:
    async with node_in(switch.host("a"), 1, "--probe-every", "1") as a, node_in(switch.host("b"), 2, "--probe-every", "1") as b:
        for node in (a, b):
            await node.until(is_peer("up", "both"), 10)

        heard = len(a.said), len(b.said)
        switch.unplug("b")
        for node, since in zip((a, b), heard, strict=True):
            await node.until(is_peer("suspect"), 20, since)
            lost = await node.until(is_peer("down"), 40, since)
            assert lost["problem"]
        # Until neither would find the other soon by asking again: what brings them together then is the announcement.
        for node, since in zip((a, b), heard, strict=True):
            await node.until(lambda event: is_peer("down")(event) and event["next_probe_s"] > ALONE_S, 60, since)

        heard = len(a.said), len(b.said)
        switch.plug("b")
        for node, since in zip((a, b), heard, strict=True):
            await node.until(is_peer("up"), ALONE_S - 0.5, since)


@pytest.mark.asyncio
async def test_hosts_without_addresses_of_their_own_find_each_other_by_link_local_ones(link_local: Switch) -> None:
    async with node_in(link_local.host("a"), 1) as a, node_in(link_local.host("b"), 2) as b:
        for node in (a, b):
            found = await node.until(is_peer("up"), 15)
            assert found["at"][0].startswith("[fe80::")


@pytest.mark.asyncio
async def test_a_goodbye_is_checked_at_once(ipv4_only: Switch) -> None:
    async with node_in(ipv4_only.host("a"), 1, "--probe-every", "60") as a:
        async with node_in(ipv4_only.host("b"), 2, "--probe-every", "60"):
            await a.until(is_peer("up"), 10)
            since = len(a.said)
        await a.until(is_peer("suspect"), 5, since)
