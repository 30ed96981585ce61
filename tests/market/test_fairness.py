"""Shares of the machine, on the queue that the worker has."""

import asyncio
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.market.fairness import REMEMBERED, FairQueue, Ticket
from nexus_edge.types import Digest, NodeId

pytestmark = pytest.mark.asyncio


def peer(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def ticket(number: int, name: int, *, line: int = 0, cost: int = 100, prefix: str = "10.0.0.0/24") -> Ticket:
    return Ticket(Digest(number.to_bytes(32, "big")), peer(name), prefix, line, cost)


def filled(tickets: Iterable[Ticket]) -> tuple[FairQueue, dict[Digest, Ticket]]:
    queue, known = FairQueue(), {}
    for one in tickets:
        queue.put(one)
        known[one.lease] = one
    return queue, known


async def served(queue: FairQueue, known: dict[Digest, Ticket], count: int) -> list[Ticket]:
    return [known[await queue.get(lambda _: True)] for _ in range(count)]


async def test_shares_are_proportional_to_lines() -> None:
    """1 : 2 : 7, and the strangers' twentieth."""
    lines = {1: 1000, 2: 2000, 3: 7000}
    tickets = [ticket(10_000 * name + n, name, line=line) for name, line in lines.items() for n in range(1000)]
    tickets += [ticket(90_000 + n, 4) for n in range(1000)]
    queue, known = filled(tickets)
    got = Counter(one.account for one in await served(queue, known, 1000))
    assert [round(got[peer(name)], -1) for name in (1, 2, 3, 4)] == [100, 190, 660, 50]


async def test_a_fleet_is_one_flow() -> None:
    """A hundred members ask on one account and get what one peer with that line gets."""
    fleet = [Ticket(Digest(n.to_bytes(32, "big")), peer(1), f"10.0.{n % 100}.0/24", 1000, 100) for n in range(1000)]
    queue, known = filled([*fleet, *(ticket(5000 + n, 2, line=1000) for n in range(1000))])
    got = Counter(one.account for one in await served(queue, known, 400))
    assert got[peer(1)] == pytest.approx(200, abs=2)


async def test_shares_are_of_work_and_not_of_jobs() -> None:
    queue, known = filled(
        [ticket(n, 1, line=1000, cost=1000) for n in range(100)] + [ticket(1000 + n, 2, line=1000, cost=10) for n in range(5000)]
    )
    done = Counter[NodeId]()
    for one in await served(queue, known, 2020):
        done[one.account] += one.cost
    assert abs(done[peer(1)] - done[peer(2)]) <= 1000


@pytest.mark.parametrize("identities", [1, 10, 1000])
async def test_a_thousand_identities_get_what_one_gets(identities: int) -> None:
    crowd = [ticket(n, 100 + n % identities) for n in range(2000)]
    queue, known = filled([*crowd, *(ticket(5000 + n, 1, line=1000) for n in range(2000))])
    got = Counter(one.line > 0 for one in await served(queue, known, 1000))
    assert got[False] == pytest.approx(50, abs=2)


@pytest.mark.parametrize("identities", [1, 1000])
async def test_a_small_line_is_no_worse_than_none_and_many_small_ones_no_better(identities: int) -> None:
    crowd = [ticket(n, 100 + n % identities, line=1) for n in range(2000)]
    queue, known = filled([*(ticket(5000 + n, 1, line=1_000_000) for n in range(2000)), *crowd])
    got = Counter(one.line == 1 for one in await served(queue, known, 1000))
    assert got[True] == pytest.approx(50, abs=2)


async def test_strangers_take_turns_by_prefix() -> None:
    crowd = [ticket(n, 100 + n, prefix="192.0.2.0/24") for n in range(1000)]
    queue, known = filled([*crowd, ticket(5000, 7, prefix="198.51.100.0/24"), ticket(5001, 8, prefix="198.51.100.0/24")])
    first = await served(queue, known, 4)
    assert [one.prefix for one in first] == ["192.0.2.0/24", "198.51.100.0/24", "192.0.2.0/24", "198.51.100.0/24"]


async def test_who_comes_one_at_a_time_gets_no_more() -> None:
    """To leave the queue empty and come back does not begin a new share."""
    queue, known = filled([ticket(n, 1, line=1000) for n in range(1000)])
    got = 0
    waiting = False
    for n in range(500):
        if not waiting:
            one = ticket(5000 + n, 2, line=100)
            known[one.lease] = one
            queue.put(one)
            waiting = True
        if (await served(queue, known, 1))[0].account == peer(2):
            got, waiting = got + 1, False
    assert got == pytest.approx(500 / 11, abs=2)


async def test_a_small_line_that_came_first_is_not_starved() -> None:
    """It had the machine to itself; then one with a line a million times as large comes."""
    queue, known = filled([ticket(n, 1, line=2) for n in range(300)])
    await served(queue, known, 100)
    for n in range(1000):
        one = ticket(5000 + n, 2, line=2_000_000)
        known[one.lease] = one
        queue.put(one)
    got = Counter(one.account for one in await served(queue, known, 200))
    assert got[peer(1)] == pytest.approx(10, abs=2)


async def test_a_crowd_that_came_first_ends_as_strangers() -> None:
    """Each has a flow of its own while lines are small, and keeps it no longer than its leases last."""
    crowd = [ticket(n, 100 + n % 10, line=2) for n in range(100)]
    queue, known = filled(crowd)
    for n in range(4000):
        one = ticket(5000 + n, 2, line=2_000_000)
        known[one.lease] = one
        queue.put(one)
    await served(queue, known, 1000)
    for n in range(1000):
        one = ticket(20_000 + n, 100 + n % 10, line=2)
        known[one.lease] = one
        queue.put(one)
    got = Counter(one.line for one in await served(queue, known, 1000))
    assert got[2] == pytest.approx(50, abs=3)


async def test_what_was_not_used_is_not_saved() -> None:
    queue, known = filled([ticket(n, 1, line=1000) for n in range(3000)])
    await served(queue, known, 1000)
    for n in range(1000):
        one = ticket(5000 + n, 2, line=1000)
        known[one.lease] = one
        queue.put(one)
    got = Counter(one.account for one in await served(queue, known, 100))
    assert got[peer(2)] == pytest.approx(50, abs=1)


async def test_what_has_ended_is_dropped_and_costs_nothing() -> None:
    queue, known = filled([ticket(n, 1, line=1000) for n in range(10)] + [ticket(100 + n, 2, line=1000) for n in range(10)])
    ended = {one.lease for one in known.values() if one.account == peer(1) and int.from_bytes(one.lease, "big") < 9}
    got = [known[await queue.get(lambda lease: lease not in ended)].account for _ in range(11)]
    assert got.count(peer(1)) == 1
    assert len(queue) == 0


async def test_an_empty_queue_waits() -> None:
    queue = FairQueue()
    waiting = [asyncio.create_task(queue.get(lambda _: True)) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    queue.put(ticket(1, 1))
    queue.put(ticket(2, 1))
    assert {await task for task in waiting} == {ticket(1, 1).lease, ticket(2, 1).lease}
    gone = asyncio.create_task(queue.get(lambda _: True))
    await asyncio.sleep(0.01)
    gone.cancel()
    queue.put(ticket(3, 1))
    assert await queue.get(lambda _: True) == ticket(3, 1).lease


async def test_memory_is_bounded() -> None:
    queue = FairQueue()
    for n in range(2 * REMEMBERED):
        queue.put(ticket(n, n, line=1000))
        await queue.get(lambda _: True)
    assert len(queue._ahead) <= REMEMBERED
    assert len(queue._flows) == 0


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 50, 2**40]), st.integers(0, 2**40), st.sampled_from("abc"), st.booleans()))
)
async def test_nothing_is_lost_or_served_twice(steps: list[tuple[int, int, int, str, bool]]) -> None:
    queue, waiting = FairQueue(), set()
    for number, (name, line, cost, prefix, take) in enumerate(steps):
        one = ticket(number, name, line=line, cost=cost, prefix=prefix)
        queue.put(one)
        waiting.add(one.lease)
        if take:
            waiting.remove(await queue.get(lambda _: True))
    while waiting:
        waiting.remove(await queue.get(lambda _: True))
    assert len(queue) == 0
