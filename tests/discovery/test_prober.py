"""The prober against real servers: handshakes, records, dialback, and addresses that are not what they seem."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest

from nexus_edge.discovery import Endpoint, Peer, PeerDirectory, Prober, Source, State
from nexus_edge.discovery.directory import PROBE_EVERY_S
from nexus_edge.discovery.prober import first_to_answer
from nexus_edge.errors import PeerError
from nexus_edge.identity import NodeKey
from nexus_edge.transport import Answering, PeerClient, PeerServer
from nexus_edge.transport.addresses import Caller
from nexus_edge.types import NodeId
from nexus_edge.wire.messages import PeersRequest
from nexus_edge.wire.objects import NodeRecord
from nexus_edge.wire.signing import read_signed
from tests.discovery.host import Host

ME = NodeKey.from_seed(b"\1" * 32)
PEER = NodeKey.from_seed(b"\2" * 32)
OTHER = NodeKey.from_seed(b"\3" * 32)


@dataclass
class Node:
    """A listening node that probes."""

    directory: PeerDirectory
    port: int

    async def until(self, what: Callable[[], bool], within_s: float = 5.0) -> None:
        with self.directory.watch() as changes:
            async with asyncio.timeout(within_s):
                while not what():
                    await anext(changes)

    def peer(self, node: NodeId = PEER.id) -> Peer:
        found = self.directory.get(node)
        assert found is not None
        return found

    def is_up(self, node: NodeId = PEER.id) -> bool:
        found = self.directory.get(node)
        return found is not None and found.state is State.UP


@contextlib.asynccontextmanager
async def running(
    key: NodeKey, mesh: str = "home", port: int | None = None, *, listen: int = 0, probe_every_s: float = PROBE_EVERY_S
) -> AsyncIterator[Node]:
    """With another port, that is where it says it can be dialled."""
    directory = PeerDirectory(key.id, mesh, probe_every_s=probe_every_s)

    def reached(caller: Caller, at: int) -> None:
        directory.report_caller(caller.peer, Endpoint(caller.address, at))

    async with PeerClient(key) as client, PeerClient(key) as probing:
        server = PeerServer(key, Answering(Host(key, directory), client, reached, directory.reaches))  # type: ignore[arg-type]  # nobody asks for the rest
        await server.start("127.0.0.1", listen)
        task = asyncio.create_task(Prober(directory, probing, port or server.port).run(), name="prober")
        try:
            yield Node(directory, server.port)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await server.close()


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """The kernel accepts connections, and nobody says anything on them."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]


@pytest.mark.asyncio
async def test_a_hint_becomes_a_peer_that_is_up_and_reaches_us() -> None:
    async with running(ME) as me, running(PEER) as peer:
        me.directory.add_hint(Source.MDNS, "127.0.0.1", peer.port, PEER.id)
        started = time.monotonic()
        await me.until(me.is_up)
        assert time.monotonic() - started < 1.0
        await me.until(lambda: me.peer().mutual is True)
        found = me.peer()
        assert found.reach == "both"
        assert found.record is not None
        assert found.record.object.mesh == "home"
        assert found.rtt_ms is not None
        assert 0 < found.rtt_ms < 500
        assert found.skew_ms is not None
        assert abs(found.skew_ms) < 100


@pytest.mark.asyncio
async def test_a_peer_that_cannot_dial_us_says_why() -> None:
    """We say that we listen where nobody does."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    async with running(ME, port=nobody) as me, running(PEER) as peer:
        me.directory.add_hint(Source.MDNS, "127.0.0.1", peer.port, PEER.id)
        await me.until(lambda: me.peer().mutual is False)
        assert me.peer().reach == "out"
        assert me.peer().one_way
        me.directory.report_mutual(PEER.id, True)
        assert (me.peer().reach, me.peer().one_way) == ("both", "")


@pytest.mark.asyncio
async def test_an_address_in_the_settings_needs_no_id() -> None:
    async with running(ME) as me, running(PEER) as peer:
        me.directory.add_hint(Source.STATIC, "localhost", peer.port)
        await me.until(me.is_up)
        assert me.peer().is_static
        assert [(hint.node, hint.problem) for hint in me.directory.unidentified()] == [(PEER.id, "")]


@pytest.mark.asyncio
async def test_a_text_record_that_lies_brings_nobody_up() -> None:
    async with running(ME) as me, running(OTHER) as other:
        me.directory.add_hint(Source.MDNS, "127.0.0.1", other.port, PEER.id)
        await me.until(lambda: bool(me.peer().problem))
        assert "another node answers" in me.peer().problem
        assert me.peer().state is State.NEW
        assert me.directory.get(OTHER.id) is None


@pytest.mark.asyncio
async def test_another_mesh_is_named_as_the_reason() -> None:
    async with running(ME) as me, running(PEER, mesh="work") as peer:
        me.directory.add_hint(Source.STATIC, "127.0.0.1", peer.port, PEER.id)
        await me.until(lambda: bool(me.peer().problem))
        assert "'work'" in me.peer().problem
        assert me.peer().elsewhere == "work"
        assert not me.is_up()


@pytest.mark.asyncio
async def test_a_silent_address_delays_its_neighbour_by_a_quarter_second() -> None:
    async with running(ME) as me, running(PEER) as peer:
        with silent_server() as silent:
            me.directory.add_hint(Source.STATIC, "127.0.0.1", silent, PEER.id)
            me.directory.add_hint(Source.MDNS, "127.0.0.1", peer.port, PEER.id)
            started = time.monotonic()
            await me.until(me.is_up)
            assert time.monotonic() - started < 1.5
            assert me.peer().addresses[0].endpoint.port == peer.port


@pytest.mark.asyncio
async def test_invented_peers_do_not_delay_one_in_the_settings() -> None:
    async with running(ME) as me, running(PEER) as peer:
        with silent_server() as silent:
            for number in range(60):
                me.directory.add_hint(Source.MDNS, "127.0.0.1", silent, NodeKey.from_seed(bytes([100 + number]) * 32).id)
            await asyncio.sleep(0.1)
            me.directory.add_hint(Source.STATIC, "127.0.0.1", peer.port, PEER.id)
            started = time.monotonic()
            await me.until(me.is_up)
            assert time.monotonic() - started < 1.0


@pytest.mark.asyncio
async def test_a_peer_that_stops_is_suspect_and_comes_back() -> None:
    async with running(ME) as me:
        async with running(PEER) as peer:
            port = peer.port
            me.directory.add_hint(Source.STATIC, "127.0.0.1", port, PEER.id)
            await me.until(me.is_up)
        me.directory.stir()
        await me.until(lambda: me.peer().state is State.SUSPECT)
        assert "cannot be reached" in me.peer().problem
        directory = PeerDirectory(PEER.id, "home")
        async with PeerClient(PEER) as client:
            server = PeerServer(PEER, Answering(Host(PEER, directory), client))  # type: ignore[arg-type]
            await server.start("127.0.0.1", port)
            await me.until(me.is_up, 10)
            await server.close()


@pytest.mark.asyncio
async def test_a_peer_that_was_restarted_hears_of_us_with_the_next_probe() -> None:
    """Nothing names us to it: it knows us because we dialled it, and has forgotten that."""
    async with running(ME, probe_every_s=0.3) as me:
        async with running(PEER) as peer:
            me.directory.add_hint(Source.STATIC, "127.0.0.1", peer.port, PEER.id)
            await peer.until(lambda: peer.is_up(ME.id))
            for _ in range(2):  # the second of two probes began when it knew us, and it said so
                before = me.peer().last_answer
                await me.until(lambda before=before: me.peer().last_answer != before)  # type: ignore[misc]
        async with running(PEER, listen=peer.port) as again:
            await again.until(lambda: again.is_up(ME.id), 10)
            assert again.peer(ME.id).found_by is Source.CALLER


@pytest.mark.asyncio
async def test_a_peer_that_never_reached_us_is_not_asked_with_every_probe() -> None:
    async with running(ME, port=1, probe_every_s=0.1) as me, running(PEER) as peer:
        me.directory.add_hint(Source.STATIC, "127.0.0.1", peer.port, PEER.id)
        await me.until(lambda: me.is_up() and me.peer().mutual is not None)
        asked = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(me.directory, "report_mutual", lambda *answer: asked.append(answer))
            await asyncio.sleep(1)
        assert me.is_up()
        assert not asked


@pytest.mark.asyncio
async def test_who_asks_for_peers_learns_those_that_are_up() -> None:
    async with running(ME) as me, running(PEER) as peer, running(OTHER) as other:
        peer.directory.add_hint(Source.STATIC, "127.0.0.1", other.port, OTHER.id)
        await peer.until(lambda: peer.is_up(OTHER.id))
        async with PeerClient(ME) as client:
            answer = await client.at(PEER.id, "127.0.0.1", peer.port).peers(PeersRequest((ME.id,)))
        assert [read_signed(data, NodeRecord).issuer for data in answer.nodes] == [OTHER.id]
        assert me.directory.snapshot() == ()


@pytest.mark.asyncio
async def test_of_no_answers_the_first_failure_is_told() -> None:
    async def refuse(endpoint: Endpoint) -> None:
        await asyncio.sleep(0.05 / endpoint.port)
        raise PeerError(f"nobody at {endpoint.port}")

    with pytest.raises(PeerError, match="nobody at"):
        await first_to_answer([Endpoint("a", 1), Endpoint("b", 2)], refuse, 0.01)
    with pytest.raises(PeerError, match="cannot be reached"):
        await first_to_answer([], refuse, 0.01)
