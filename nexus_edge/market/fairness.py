"""Whose lease is next: shares of the machine, not of the queue. A thousand identities get no more of it than one."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nexus_edge.types import Digest, NodeId

STRANGERS_PERCENT: Final = 5
"""What all who have no line get together while others wait, by turns of their address prefixes."""
SCALE: Final = 1 << 16
"""Steps of the virtual clock in a core-millisecond of a flow that has the machine to itself."""
REMEMBERED: Final = 4096
"""Peers whose share may be ahead of the clock: who comes back with nothing in the queue has not gained by leaving."""


@dataclass(frozen=True)
class Ticket:
    """A lease that waits."""

    lease: Digest
    account: NodeId
    """The peer that it is for, or the key of the peer's fleet."""
    prefix: str
    """Of the address that it came from."""
    line: int
    """What is lent on this account, in micro-credits; 0 for a stranger."""
    cost: int
    """Forecast core-milliseconds."""


@dataclass
class _Flow:
    """Those who share one weight: one peer with a line, one fleet, or all strangers."""

    start: int
    """On the virtual clock, when its next lease may begin."""
    turns: OrderedDict[str, deque[Ticket]] = field(default_factory=OrderedDict)
    """By prefix."""

    @property
    def first(self) -> Ticket:
        return next(iter(self.turns.values()))[0]

    def pop(self) -> Ticket:
        """The first; then it is another prefix's turn."""
        prefix, tickets = self.turns.popitem(last=False)
        ticket = tickets.popleft()
        if tickets:
            self.turns[prefix] = tickets
        return ticket


class FairQueue:
    """Start-time fair queueing, which is deficit round robin with quanta as small as can be: shares of core-milliseconds proportional to lines.

    Each flow has a virtual start; the least is served, and moves on by the cost over its share of the weights that wait: what it had while
    nobody else wanted it is not held against it. Source: Goyal, Vin, Cheng, "Start-time fair queueing", 1996.
    """

    def __init__(self) -> None:
        self._flows: dict[NodeId | None, _Flow] = {}
        """None: the strangers."""
        self._clock = 0
        self._ahead: OrderedDict[NodeId | None, int] = OrderedDict()
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return sum(len(tickets) for flow in self._flows.values() for tickets in flow.turns.values())

    def put(self, ticket: Ticket) -> None:
        """Let it wait."""
        name = ticket.account if ticket.line > self._strangers(besides=ticket.account) else None
        flow = self._flows.get(name)
        if flow is None:
            flow = self._flows[name] = _Flow(max(self._clock, self._ahead.pop(name, 0)))
        flow.turns.setdefault(ticket.prefix, deque()).append(ticket)
        self._some.set()

    async def get(self, is_wanted: Callable[[Digest], bool]) -> Digest:
        """The next lease, once there is one. What is not wanted any more is dropped, at nobody's expense."""
        while True:
            self._drop(is_wanted)
            if self._flows:
                return self._take().lease
            self._some.clear()
            await self._some.wait()

    def _drop(self, is_wanted: Callable[[Digest], bool]) -> None:
        for name, flow in list(self._flows.items()):
            while flow.turns and not is_wanted(flow.first.lease):
                flow.pop()
            if not flow.turns:
                self._leave(name)

    def _take(self) -> Ticket:
        name = min(self._flows, key=lambda one: self._flows[one].start)
        flow = self._flows[name]
        total, weight = sum(map(self._weight, self._flows)), self._weight(name)
        ticket = flow.pop()
        self._clock = flow.start
        flow.start += max(1, ticket.cost) * SCALE * total // weight
        if not flow.turns:
            self._leave(name)
        return ticket

    def _weight(self, name: NodeId | None) -> int:
        """An account's line, but no less than the strangers' weight: it came when there were no larger ones, and its next leases come as theirs."""
        strangers = self._strangers(besides=name)
        return strangers if name is None else max(strangers, self._flows[name].first.line)

    def _strangers(self, besides: NodeId | None) -> int:
        """Their weight, by the lines of those who wait. Whose own line is less is better off as one of them."""
        lines = sum(flow.first.line for name, flow in self._flows.items() if name is not None and name != besides)
        return max(1, lines * STRANGERS_PERCENT // (100 - STRANGERS_PERCENT))

    def _leave(self, name: NodeId | None) -> None:
        start = self._flows.pop(name).start
        if start > self._clock:
            self._ahead[name] = start
            if len(self._ahead) > REMEMBERED:
                self._ahead.popitem(last=False)
