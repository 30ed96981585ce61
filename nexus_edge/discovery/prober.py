"""Finds out whether named peers are there: dials, lets the handshake prove the key, fetches the record, measures, asks to be dialled back."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeVar, assert_never

import structlog

from nexus_edge.discovery.directory import PeerDirectory, Unidentified
from nexus_edge.discovery.peers import Endpoint, Peer, Source
from nexus_edge.discovery.reachability import State
from nexus_edge.discovery.records import BadRecord
from nexus_edge.errors import PeerError
from nexus_edge.identity import short_id
from nexus_edge.types import NodeId
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.messages import DialbackAnswer, PeersAnswer, PeersRequest
from nexus_edge.wire.objects import NodeRecord
from nexus_edge.wire.refusals import Refusal
from nexus_edge.wire.signing import Signed, read_signed

PROBERS: Final = 16
"""At work for peers that have answered before, and as many for those that have not: invented peers delay no real one."""
PROBE_S: Final = 8.0
"""For all addresses of one peer: connecting and handshake on a slow link, and two round trips."""
STAGGER_S: Final = 0.25
"""Before the next address is dialled beside one that has not answered: RFC 8305, section 5."""
FRESH_RECORD_S: Final = 3600.0
"""A record is fetched again after this; it lives a day."""
EXCHANGE_EVERY_S: Final = 600.0
"""Between questions to one peer whom it knows."""
DIALBACK_EVERY_S: Final = 120.0
"""Between questions to one peer whether it reaches us; it answers one a minute. One that reached us and says in a ping that it does not any more,
as after a restart, is asked at once."""
LESSON_S: Final = 15.0
"""For one such question: a peer that dials back may wait for its own timeout."""
LEARNERS: Final = 4
HAVE: Final = 64
"""Ids that a request for peers may name."""

log = structlog.get_logger("discovery")

T = TypeVar("T")


class Ping(Protocol):
    """What a ping finds."""

    @property
    def rtt_ms(self) -> float:
        """Round trip on an open connection."""

    @property
    def skew_ms(self) -> int:
        """How far the peer's clock is ahead."""

    @property
    def is_known(self) -> bool:
        """Whether the peer says that it reaches us."""


class Connection(Protocol):
    """Requests to one peer at one address. Each raises `PeerError`, or `Refusal` where the peer answers no."""

    async def node(self) -> Signed[NodeRecord]:
        """Its record."""

    async def ping(self) -> Ping:
        """Round trip and clock."""

    async def dialback(self, port: int) -> DialbackAnswer:
        """Whether it reaches us."""

    async def peers(self, request: PeersRequest) -> PeersAnswer:
        """Whom it knows."""


class Dialer(Protocol):
    """Dials peers; nothing is sent to one whose key is another. `nexus_edge.transport.PeerClient` is one."""

    def at(self, peer: NodeId, host: str, port: int) -> Connection:
        """The peer at an address. Nothing is dialled yet."""

    async def identify(self, host: str, port: int) -> NodeId:
        """Who answers there. Raises `PeerError`."""

    async def forget(self, peer: NodeId) -> None:
        """Close the connections to a peer that is gone."""


@dataclass(frozen=True)
class _Found:
    """What one address of a peer answered. Record and ping are None where it refused, or where none was asked for."""

    endpoint: Endpoint
    record: Signed[NodeRecord] | None
    ping: Ping | None


class Lesson(StrEnum):
    """What peers that answer are asked, each in its own time."""

    RECORD = "record"
    DIALBACK = "dialback"
    PEERS = "peers"


_EVERY_S: Final = {Lesson.RECORD: FRESH_RECORD_S, Lesson.DIALBACK: DIALBACK_EVERY_S, Lesson.PEERS: EXCHANGE_EVERY_S}


class Prober:
    """Probes what is due in a directory, until its task is cancelled."""

    def __init__(self, directory: PeerDirectory, dialer: Dialer, port: int) -> None:
        """`dialer` is the prober's own: it closes a peer's connections. `port` is where we listen, and are dialled back."""
        self._directory = directory
        self._dialer = dialer
        self._port = port
        self._proven: asyncio.Queue[Peer | Unidentified] = asyncio.Queue()
        self._unproven: asyncio.Queue[Peer | Unidentified] = asyncio.Queue()
        self._lessons: asyncio.Queue[tuple[Lesson, NodeId, Endpoint]] = asyncio.Queue()
        self._learnt: dict[NodeId, dict[Lesson, float]] = {}
        self._knows_us: set[NodeId] = set()

    async def run(self) -> None:
        """Probe for ever. The queues stay small: a row is due again only after its report, a lesson after its interval."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(PROBERS):
                tasks.create_task(self._work(self._proven), name=f"probe proven peers {number}")
                tasks.create_task(self._work(self._unproven), name=f"probe unproven peers {number}")
            for number in range(LEARNERS):
                tasks.create_task(self._learn(), name=f"ask peers {number}")
            while True:
                for row in await self._directory.due():
                    (self._proven if _has_standing(row) else self._unproven).put_nowait(row)

    async def _work(self, queue: asyncio.Queue[Peer | Unidentified]) -> None:
        while True:
            row = await queue.get()
            if isinstance(row, Unidentified):
                await self._identify(row.endpoint)
            else:
                await self._probe(row.id)

    async def _identify(self, endpoint: Endpoint) -> None:
        try:
            async with asyncio.timeout(PROBE_S):
                node = await self._dialer.identify(endpoint.host, endpoint.port)
        except (PeerError, TimeoutError) as failed:
            self._directory.report_unidentified(endpoint, _why(failed))
        else:
            self._directory.report_identity(endpoint, node)

    async def _probe(self, node: NodeId) -> None:
        peer = self._directory.get(node)
        if peer is None:
            return
        try:
            async with asyncio.timeout(PROBE_S):
                found, silent = await first_to_answer(
                    [address.endpoint for address in peer.addresses], lambda endpoint: self._ask(peer, endpoint), STAGGER_S
                )
            if found.record is not None:
                self._directory.keep_record(found.record, None)
                self._learnt.setdefault(node, {})[Lesson.RECORD] = asyncio.get_running_loop().time()
                self._directory.report_success(node, endpoint=found.endpoint)
        except (PeerError, TimeoutError) as failed:
            self._directory.report_failure(node, _why(failed))
            self._learnt.pop(node, None)
            self._knows_us.discard(node)
            await self._dialer.forget(node)
            return
        if silent:
            self._directory.report_silent(node, silent)
            await self._dialer.forget(node)
        rtt, skew = (found.ping.rtt_ms, found.ping.skew_ms) if found.ping else (None, None)
        self._directory.report_success(node, rtt, endpoint=found.endpoint, skew_ms=skew)
        if found.ping is not None:
            self._hear(node, found.ping.is_known)
        self._plan_lessons(node, found.endpoint)

    def _hear(self, node: NodeId, is_known: bool) -> None:
        """Whether the peer reaches us. One that never did, behind a firewall as we may be, is not asked more often for that."""
        if is_known:
            self._knows_us.add(node)
        elif node in self._knows_us:
            self._knows_us.discard(node)
            self._learnt.get(node, {}).pop(Lesson.DIALBACK, None)

    async def _ask(self, peer: Peer, endpoint: Endpoint) -> _Found:
        """The handshake proves the key; then the record, where none is held, and a ping on the open connection."""
        connection = self._dialer.at(peer.id, endpoint.host, endpoint.port)
        record = None
        try:
            if peer.record is None:
                record = await connection.node()
            else:
                await connection.ping()  # opens the connection: its time is not the round trip's
            return _Found(endpoint, record, await connection.ping())
        except Refusal:
            return _Found(endpoint, record, None)

    def _plan_lessons(self, node: NodeId, endpoint: Endpoint) -> None:
        peer = self._directory.get(node)
        if peer is None or peer.state is not State.UP:
            return
        now = asyncio.get_running_loop().time()
        learnt = self._learnt.setdefault(node, {})
        for lesson, every_s in _EVERY_S.items():
            if lesson not in learnt or now - learnt[lesson] >= every_s:
                learnt[lesson] = now
                self._lessons.put_nowait((lesson, node, endpoint))

    async def _learn(self) -> None:
        """A refusal or failure here is no failure of the peer: the next probe finds out."""
        while True:
            lesson, node, endpoint = await self._lessons.get()
            if self._directory.get(node) is None:
                continue
            connection = self._dialer.at(node, endpoint.host, endpoint.port)
            try:
                async with asyncio.timeout(LESSON_S):
                    match lesson:
                        case Lesson.RECORD:
                            self._directory.keep_record(await connection.node(), None)
                        case Lesson.DIALBACK:
                            answer = await connection.dialback(self._port)
                            self._directory.report_mutual(node, answer.ok, answer.error)
                        case Lesson.PEERS:
                            self._take_records(await connection.peers(PeersRequest(self._known())))
                        case _:
                            assert_never(lesson)
            except (PeerError, Refusal, TimeoutError) as failed:
                log.debug("peer does not tell", peer=short_id(node), asked=lesson.value, reason=_why(failed))

    def _known(self) -> tuple[NodeId, ...]:
        known = [peer.id for peer in self._directory.snapshot() if peer.record is not None]
        return tuple(random.sample(known, min(HAVE, len(known))))

    def _take_records(self, answer: PeersAnswer) -> None:
        for data in answer.nodes:
            try:
                self._directory.keep_record(read_signed(data, NodeRecord), Source.EXCHANGE)
            except (BadObject, BadRecord) as bad:
                log.debug("record refused", reason=str(bad))


async def first_to_answer(
    endpoints: list[Endpoint], ask: Callable[[Endpoint], Coroutine[None, None, T]], stagger_s: float
) -> tuple[T, list[Endpoint]]:
    """Ask at one address after the other without waiting long for any: the first answer, and the addresses that were asked before it.

    Raises the `PeerError` of the first address if none answers.
    """
    asked: list[Endpoint] = []
    running: dict[asyncio.Task[T], Endpoint] = {}
    failures: list[PeerError] = []
    try:
        while len(asked) < len(endpoints) or running:
            if len(asked) < len(endpoints):
                endpoint = endpoints[len(asked)]
                asked.append(endpoint)
                running[asyncio.create_task(ask(endpoint), name=f"dial {endpoint}")] = endpoint
            is_last = len(asked) == len(endpoints)
            done, _ = await asyncio.wait(running, timeout=None if is_last else stagger_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                endpoint = running.pop(task)
                try:
                    return task.result(), asked[: asked.index(endpoint)]
                except PeerError as failed:
                    failures.append(failed)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    raise failures[0] if failures else PeerError("the peer cannot be reached", "no address of it is known")


def _has_standing(row: Peer | Unidentified) -> bool:
    return row.is_static or row.last_answer is not None if isinstance(row, Peer) else row.source is Source.STATIC


def _why(failed: Exception) -> str:
    return f"no answer within {PROBE_S:g} s" if isinstance(failed, TimeoutError) else str(failed)
