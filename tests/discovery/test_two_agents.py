"""Two whole agents on a switch, each told of nobody: they find each other, work for each other, lose each other, and begin again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.discovery.agents import Agent, agent_in
from tests.discovery.networks import switched

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are made by root"),
    pytest.mark.timeout(600),
]

ADDRESSES = {"a": ("10.78.0.1/24",), "b": ("10.78.0.2/24",)}
MEET_S = 60.0
LOSE_S = 180.0
"""Three failures over 10 seconds at least, of which the first comes with the next probe, and each may wait for its own deadline."""


def only(other: Agent, state: str, reach: str = "") -> Callable[[list[dict[str, Any]]], bool]:
    """Whether these peers are this one alone, in this state."""

    def is_so(peers: list[dict[str, Any]]) -> bool:
        return [(one["short_id"], one["state"]) for one in peers] == [(other.short_id, state)] and peers[0]["reach"].startswith(reach)

    return is_so


def heard(other: Agent) -> Callable[[list[dict[str, Any]]], bool]:
    """Whether it is up, and was heard by multicast: whoever is called first is known as a caller too."""
    return lambda peers: only(other, "up", "both")(peers) and "mdns" in peers[0]["found_by"]


@pytest.mark.asyncio
async def test_agents_that_know_nobody_work_for_each_other_before_and_after_their_link_is_down(tmp_path: Path) -> None:
    with switched(ADDRESSES) as switch:
        async with (
            agent_in(switch.host("a"), "alder", tmp_path / "a") as alder,
            agent_in(switch.host("b"), "birch", tmp_path / "b") as birch,
        ):
            both = ((alder, birch), (birch, alder))
            for one, other in both:
                (found,) = await one.until(heard(other), MEET_S)
                assert set(found["found_by"]) <= {"mdns", "caller"}
                assert found["name"] == other.name
            first = await alder.run(0)
            assert (first["verified"], first["peer"]["short_id"]) == (True, birch.short_id)

            switch.unplug("b")
            for one, other in both:
                await one.until(only(other, "down"), LOSE_S)
            switch.plug("b")
            for one, other in both:
                await one.until(only(other, "up", "both"), MEET_S)
            second = await birch.run(1)
            assert (second["verified"], second["peer"]["short_id"]) == (True, alder.short_id)

            paid, earned = ("paid", "both"), ("earned", "both")
            await alder.until_receipts({first["entry"]: paid, second["entry"]: earned})
            await birch.until_receipts({first["entry"]: earned, second["entry"]: paid})
