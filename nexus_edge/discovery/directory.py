"""The table of peers: one row for each id, one for each address in the settings whose node is not known yet, and what is to be probed when.

Sources call `add_hint`, `withdraw` and `keep_record`; the prober, and whoever else talks to peers, reports how it went.
"""

import asyncio
import contextlib
import heapq
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from nexus_edge.clock import now_ms
from nexus_edge.discovery.hints import Unproven
from nexus_edge.discovery.peers import Endpoint, Peer, Source, dialable
from nexus_edge.discovery.reachability import UNTRIED, Answered, Event, Failed, Reachability, State, Stirred, apply
from nexus_edge.discovery.records import OtherMesh, check_record
from nexus_edge.types import NodeId, UnixMs
from nexus_edge.wire.addresses import prefix_of
from nexus_edge.wire.limits import NODE_RECORDS, RECORD_LIFE_MS
from nexus_edge.wire.objects import NodeRecord
from nexus_edge.wire.signing import Signed

PROBE_EVERY_S: Final = 15.0
"""Between probes of a peer that answers: a lost one is noticed within a minute."""
PROBES_PER_S: Final = 8.0
"""For all peers that answer: with more of them than 120, each is probed less often."""
GOODBYE_S: Final = 1.0
"""From a goodbye to the probe: one who leaves still answers while it says so."""
WATCHED: Final = 4096
"""Changed rows that a slow reader of changes is told one by one."""
FORGOTTEN_AFTER_S: Final = RECORD_LIFE_MS / 1000
"""A peer that is down is kept as long as a record lives."""

Key = NodeId | Endpoint


@dataclass(frozen=True)
class Unidentified:
    """An address whose node is not known: in the settings without an id, or announced without one."""

    endpoint: Endpoint
    source: Source
    reachability: Reachability = UNTRIED
    node: NodeId | None = None
    """Who answered there last."""
    problem: str = ""


class Watch:
    """Changes of a directory, gathered until they are read: `with directory.watch() as changes: async for ids in changes`."""

    def __init__(self, watches: "set[Watch]", everyone: Callable[[], Iterable[NodeId]]) -> None:
        self._watches = watches
        self._everyone = everyone
        self._ids: set[NodeId] | None = set()
        self._changed = asyncio.Event()

    def changed(self, node: NodeId) -> None:
        """Note a row. A reader that falls far behind is told that every row may have changed."""
        if self._ids is not None:
            self._ids.add(node)
            if len(self._ids) > WATCHED:
                self._ids = None
        self._changed.set()

    def __enter__(self) -> "Watch":
        self._watches.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._watches.discard(self)

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> frozenset[NodeId]:
        await self._changed.wait()
        self._changed.clear()
        ids, self._ids = self._ids, set()
        return frozenset(self._everyone() if ids is None else ids)


class PeerDirectory:
    """Who is out there. Everything happens on one event loop, and nothing here waits."""

    def __init__(
        self,
        me: NodeId,
        mesh: str,
        *,
        probe_every_s: float = PROBE_EVERY_S,
        limit: int = NODE_RECORDS,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = now_ms,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.me = me
        self.mesh = mesh
        self._probe_every_s = probe_every_s
        self._limit = limit
        self._monotonic = monotonic
        self._wall = wall
        self._jitter = jitter
        self._peers: dict[NodeId, Peer] = {}
        self._unidentified: dict[Endpoint, Unidentified] = {}
        self._unproven = Unproven[Key]()
        self._schedule: list[tuple[float, int, Key]] = []
        self._order = count()
        self._up = 0
        self._watches: set[Watch] = set()
        self._replanned = asyncio.Event()

    # What sources say

    def add_hint(self, source: Source, host: str, port: int, node: NodeId | None = None) -> None:
        """A source names an address, and perhaps whose it is. Nothing of it is believed before the handshake."""
        endpoint = Endpoint(host, port)
        if node == self.me:
            return
        if node is None:
            self._add_unidentified(endpoint, source)
            return
        before = self._peers.get(node)
        peer = (before or Peer(node, self._now(), source)).found_at(endpoint, source, self._now())
        if peer.state is not State.UP:
            peer = self._with(peer, Stirred(self._monotonic()))
        self._put(peer)
        if node in self._peers and not peer.is_static and peer.last_answer is None:
            self._bound(node, host)

    def withdraw(self, source: Source, node: NodeId, endpoint: Endpoint | None = None) -> None:
        """A source takes back an address, or all it named: a goodbye. Anyone can say goodbye for another, so the peer is asked."""
        peer = self._peers.get(node)
        if peer is None:
            return
        left = peer.without(source, endpoint)
        if left.addresses:
            self._put(self._with(left, Stirred(self._monotonic() + GOODBYE_S)))
        else:
            self._drop(node)

    def keep_record(self, signed: Signed[NodeRecord], source: Source | None) -> None:
        """Keep a signed record if it is good and newer. Raises `BadRecord`.

        Its addresses become hints of `source`; None where the peer itself answered, and is known to be reachable.
        """
        node = signed.issuer
        if node == self.me:
            return
        held = self._peers.get(node)
        try:
            check_record(signed, self.mesh, self._now(), held.record if held else None)
        except OtherMesh as other:
            # Only its own word: a record that others pass on may be an old one.
            if source is None and held is not None:
                self._put(replace(held, elsewhere=other.mesh))
            raise
        if source is not None:
            for endpoint in dialable(signed.object.addrs):
                self.add_hint(source, endpoint.host, endpoint.port, node)
        peer = self._peers.get(node)
        if peer is not None:  # without an address there is nobody to ask
            self._put(replace(peer, record=signed, elsewhere=peer.elsewhere if source is not None else None))

    def stir(self) -> None:
        """Our own networks changed: ask everyone again, soon."""
        now = self._monotonic()
        for peer in list(self._peers.values()):
            self._put(self._with(peer, Stirred(now)))
        for hint in list(self._unidentified.values()):
            self._put_hint(replace(hint, reachability=apply(Stirred(now), hint.reachability)))

    # What talking to peers shows

    def report_success(
        self, node: NodeId, rtt_ms: float | None = None, *, endpoint: Endpoint | None = None, skew_ms: int | None = None
    ) -> None:
        """The peer answered a request: from the prober, or from anyone who had a job done there."""
        peer = self._peers.get(node)
        if peer is None:
            return
        every = max(self._probe_every_s, self._up / PROBES_PER_S)
        answered = Answered(self._monotonic(), every, self._jitter())
        self._unproven.discard(node)
        self._put(self._with(peer.answered_at(endpoint, rtt_ms, skew_ms, self._now()), answered))

    def report_failure(self, node: NodeId, why: str = "") -> None:
        """No address of the peer answered."""
        peer = self._peers.get(node)
        if peer is None:
            return
        peer = self._with(replace(peer, problem=why), Failed(self._monotonic(), self._jitter()))
        if peer.state is State.DOWN and not peer.is_static and self._is_forgotten(peer):
            self._drop(node)
        else:
            self._put(peer)

    def report_silent(self, node: NodeId, endpoints: Iterable[Endpoint]) -> None:
        """Of several addresses that were dialled, these did not answer, or not first."""
        peer = self._peers.get(node)
        if peer is None:
            return
        left = peer.silent_at(frozenset(endpoints))
        if left.addresses:
            self._put(left)

    def report_mutual(self, node: NodeId, reached: bool, why: str = "") -> None:
        """Whether the peer reached us: it dialled back, or called by itself; and why not, as it says."""
        peer = self._peers.get(node)
        if peer is None:
            return
        if reached and peer.state is not State.UP:
            peer = self._with(peer, Stirred(self._monotonic()))
        self._put(replace(peer, mutual=reached, one_way="" if reached else why or "it does not say why"))

    def report_caller(self, node: NodeId, endpoint: Endpoint) -> None:
        """It dialled us, and was there when it was dialled back: a peer like any other, even if no source names it."""
        if not self.reaches(node):
            self.add_hint(Source.CALLER, endpoint.host, endpoint.port, node)
        self.report_mutual(node, reached=True)

    def report_identity(self, endpoint: Endpoint, node: NodeId) -> None:
        """Who answered at an address without an id."""
        hint = self._unidentified.get(endpoint)
        if hint is None:
            return
        if node == self.me:  # our own address: nothing to ask there
            self._drop_hint(endpoint)
            return
        if hint.source is Source.STATIC:
            # It stays: another node may answer there one day, and is then to be found without a restart.
            if hint.node is not None and hint.node != node:
                self._move(endpoint, hint.node)
            now = self._monotonic()
            again = Reachability(State.UP, probed_at=now, probe_at=now + self._probe_every_s)
            self._put_hint(replace(hint, reachability=again, node=node, problem=""))
        else:
            self._drop_hint(endpoint)
        self.add_hint(hint.source, endpoint.host, endpoint.port, node)

    def report_unidentified(self, endpoint: Endpoint, why: str) -> None:
        """Nobody could be identified at an address."""
        hint = self._unidentified.get(endpoint)
        if hint is None:
            return
        reachability = apply(Failed(self._monotonic(), self._jitter()), hint.reachability)
        if reachability.state is State.DOWN and hint.source is not Source.STATIC:
            self._drop_hint(endpoint)
        else:
            self._put_hint(replace(hint, reachability=reachability, problem=why))

    # What is known

    def get(self, node: NodeId) -> Peer | None:
        """The row of a peer."""
        return self._peers.get(node)

    def reaches(self, node: NodeId | None) -> bool:
        """Whether it is a peer that answers."""
        peer = None if node is None else self._peers.get(node)
        return peer is not None and peer.state is State.UP

    def up(self) -> list[Peer]:
        """The peers that answer."""
        return [peer for peer in self._peers.values() if peer.state is State.UP]

    def snapshot(self) -> tuple[Peer, ...]:
        """Every row, as it stands."""
        return tuple(self._peers.values())

    def unidentified(self) -> tuple[Unidentified, ...]:
        """The addresses in the settings, and others without an id, with what is wrong there."""
        return tuple(self._unidentified.values())

    def sample(self, have: Iterable[bytes], size: int) -> list[Signed[NodeRecord]]:
        """Records of reachable peers for one who knows `have`, drawn at random."""
        known = frozenset(have)
        records = [peer.record for peer in self.up() if peer.record is not None and peer.id not in known]
        return random.sample(records, min(size, len(records)))

    def watch(self) -> "Watch":
        """Ids whose rows changed, from now on."""
        return Watch(self._watches, self._peers.keys)

    # For the prober

    async def due(self) -> list[Peer | Unidentified]:
        """Wait for rows that are to be probed. Each is due again only when a report of its probe says so."""
        while not (rows := self._take_due()):
            self._replanned.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._schedule[0][0] - self._monotonic()) if self._schedule else None):
                    await self._replanned.wait()
        return rows

    def _take_due(self) -> list[Peer | Unidentified]:
        now = self._monotonic()
        due: dict[Key, Peer | Unidentified] = {}
        while self._schedule and self._schedule[0][0] <= now:
            at, _, key = heapq.heappop(self._schedule)
            row = self._row(key)
            if row is None or row.reachability.probe_at != at:
                continue  # replanned meanwhile
            if isinstance(row, Unidentified) and self.reaches(row.node):
                self._put_hint(replace(row, reachability=replace(row.reachability, probe_at=now + self._probe_every_s)))
            else:
                due[key] = row
        return list(due.values())

    def _move(self, endpoint: Endpoint, node: NodeId) -> None:
        before = self._peers.get(node)
        if before is not None:
            self._put(before.without(Source.STATIC, endpoint).silent_at(frozenset({endpoint})))

    def _with(self, peer: Peer, event: Event) -> Peer:
        return replace(peer, reachability=apply(event, peer.reachability))

    def _put(self, peer: Peer) -> None:
        before = self._peers.get(peer.id)
        if peer == before:
            return
        if before is None and len(self._peers) >= self._limit and not self._make_room(peer):
            return
        self._peers[peer.id] = peer
        self._up += (peer.state is State.UP) - (before is not None and before.state is State.UP)
        self._plan(peer.id, peer.reachability, before.reachability if before else None)
        self._tell(peer.id)

    def _put_hint(self, hint: Unidentified) -> None:
        before = self._unidentified.get(hint.endpoint)
        self._unidentified[hint.endpoint] = hint
        self._plan(hint.endpoint, hint.reachability, before.reachability if before else None)

    def _add_unidentified(self, endpoint: Endpoint, source: Source) -> None:
        before = self._unidentified.get(endpoint)
        if before is None:
            self._put_hint(Unidentified(endpoint, source))
            if source is not Source.STATIC:
                self._bound(endpoint, endpoint.host)
        elif not self.reaches(before.node):
            self._put_hint(replace(before, reachability=apply(Stirred(self._monotonic()), before.reachability)))

    def _bound(self, key: Key, host: str) -> None:
        out = self._unproven.add(key, prefix_of(host))
        if isinstance(out, Endpoint):
            self._drop_hint(out)
        elif out is not None:
            self._drop(out)

    def _make_room(self, newcomer: Peer) -> bool:
        """A hundredth of the least useful rows goes at once, so that a flood of records does not sort the table for each."""
        out = heapq.nsmallest(max(1, self._limit // 100), self._peers.values(), key=Peer.usefulness)
        out = [peer for peer in out if not peer.is_static and peer.usefulness() <= newcomer.usefulness()]
        for peer in out:
            self._drop(peer.id)
        return bool(out)

    def _is_forgotten(self, peer: Peer) -> bool:
        """Whoever never answered leaves when it goes down: if it is there, it is named again."""
        return peer.last_answer is None or self._now() - peer.last_answer > 1000 * FORGOTTEN_AFTER_S

    def _drop(self, node: NodeId) -> None:
        peer = self._peers.pop(node, None)
        self._unproven.discard(node)
        if peer is not None:
            self._up -= peer.state is State.UP
            self._tell(node)

    def _drop_hint(self, endpoint: Endpoint) -> None:
        self._unidentified.pop(endpoint, None)
        self._unproven.discard(endpoint)

    def _row(self, key: Key) -> Peer | Unidentified | None:
        return self._unidentified.get(key) if isinstance(key, Endpoint) else self._peers.get(key)

    def _plan(self, key: Key, now: Reachability, before: Reachability | None) -> None:
        if before is not None and before.probe_at == now.probe_at:
            return
        heapq.heappush(self._schedule, (now.probe_at, next(self._order), key))
        if len(self._schedule) > 2 * (len(self._peers) + len(self._unidentified)) + 64:
            rows: list[tuple[Key, Reachability]] = [(peer.id, peer.reachability) for peer in self._peers.values()]
            rows += [(hint.endpoint, hint.reachability) for hint in self._unidentified.values()]
            self._schedule = [(reachability.probe_at, next(self._order), key) for key, reachability in rows]
            heapq.heapify(self._schedule)
        self._replanned.set()

    def _tell(self, node: NodeId) -> None:
        for watch in self._watches:
            watch.changed(node)

    def _now(self) -> UnixMs:
        return UnixMs(self._wall())
