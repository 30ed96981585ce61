"""Requests between two nodes over real TLS."""

import asyncio
import contextlib
import time

import pytest
import structlog
from blockbuster import blockbuster_ctx

from nexus_edge.errors import PeerError
from nexus_edge.identity import NodeKey
from nexus_edge.transport import PeerClient, channel
from nexus_edge.transport.addresses import is_private, join_address, prefix_of, split_address
from nexus_edge.transport.errors import Unreachable, WrongPeer
from nexus_edge.transport.rates import BUCKETS, Rates
from nexus_edge.transport.routes import ROUTES, describe_routes
from nexus_edge.wire.limits import CONNECTIONS_PER_PEER, OUTPUT
from nexus_edge.wire.messages import Chunk, InputUpload, PeersRequest, Upload
from nexus_edge.wire.refusals import Code, Refusal
from tests.support.peers import CLIENT, LEASE, SERVER, serving


@pytest.mark.asyncio
async def test_both_sides_know_who_speaks() -> None:
    async with serving() as (server, handlers), PeerClient(CLIENT) as client:
        peer = client.at(SERVER.id, "127.0.0.1", server.port)
        assert (await peer.node()).issuer == SERVER.id
        await peer.peers(PeersRequest(()))
        caller = handlers.seen[-1]
        assert (caller.peer, caller.address, caller.private) == (CLIENT.id, "127.0.0.1", True)
        ping = await peer.ping()
        assert 0 < ping.rtt_ms < 1000
        assert abs(ping.skew_ms) < 1000
        assert ping.address.startswith("127.0.0.1:")


@pytest.mark.asyncio
async def test_nothing_blocks_the_loop() -> None:
    async with serving() as (server, _), PeerClient(CLIENT) as client:
        peer = client.at(SERVER.id, "127.0.0.1", server.port)
        with blockbuster_ctx("nexus_edge"):
            await peer.node()
            await peer.put_input(LEASE, InputUpload(bytes(2**20), b"", 1))
            assert len((await peer.result(LEASE)).output) == OUTPUT
            assert await client.identify("127.0.0.1", server.port) == SERVER.id


@pytest.mark.asyncio
async def test_requests_carry_what_they_say() -> None:
    async with serving() as (server, handlers), PeerClient(CLIENT) as client:
        peer = client.at(SERVER.id, "127.0.0.1", server.port)
        await peer.put_input(LEASE, InputUpload(b"abc", b"", 1))
        assert (await peer.poll(LEASE, 7, 1)).state == "queued"
        assert (await peer.get_object(LEASE, 2**31, 5)).data == bytes(5)
        assert handlers.seen[0][1:] == (LEASE, 3)
        assert handlers.seen[1:] == [(LEASE, 7), (LEASE, 2**31, 5)]


@pytest.mark.asyncio
async def test_a_fault_of_the_node_is_told_as_one() -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving() as (server, _), PeerClient(CLIENT) as client:
            with pytest.raises(Refusal) as refused:
                await client.at(SERVER.id, "127.0.0.1", server.port).account(bytes(8), 1)
            assert refused.value.code is Code.INTERNAL
            assert (await client.at(SERVER.id, "127.0.0.1", server.port).node()).issuer == SERVER.id
    assert [entry["event"] for entry in logs] == ["a request failed"]


@pytest.mark.asyncio
async def test_sessions_that_nobody_uses_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "SESSIONS", 2)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(PeerClient(CLIENT))
        keys = [NodeKey.generate() for _ in range(4)]
        servers = [(await stack.enter_async_context(serving(key)))[0] for key in keys]
        peers = [client.at(key.id, "127.0.0.1", server.port) for key, server in zip(keys, servers, strict=True)]
        busy = asyncio.create_task(peers[0].poll(LEASE, 0, 500))
        for peer in [*peers, *peers]:
            await peer.node()
            assert len(client._sessions._open) <= 3
        assert (await busy).state == "queued"
        await client.forget(keys[3].id)
        assert peers[3] not in client._sessions._open
        await peers[3].node()
    with pytest.raises(Unreachable, match="closing"):
        await peers[0].node()


@pytest.mark.asyncio
async def test_a_connection_that_is_ended_here_stops_no_task() -> None:
    async with serving() as (server, handlers), PeerClient(CLIENT) as client:
        peer = client.at(SERVER.id, "127.0.0.1", server.port)
        # More than there are connections: the last ones wait for one of these.
        polls = [peer.poll(LEASE, 0, 20_000) for _ in range(CONNECTIONS_PER_PEER // 2)]
        uploads = [peer.put_object(LEASE, Upload(None, Chunk(0, b"x"))) for _ in range(CONNECTIONS_PER_PEER // 2)]
        asking = [asyncio.create_task(one) for one in (*polls, *uploads)]
        async with asyncio.timeout(10):
            while handlers.waiting < CONNECTIONS_PER_PEER - 2:
                await asyncio.sleep(0.01)
        await peer.close()
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(one) for one in ended] == [Unreachable] * CONNECTIONS_PER_PEER
        stopped = asyncio.create_task(peer.poll(LEASE, 0, 20_000))
        await asyncio.sleep(0.1)
        stopped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopped


@pytest.mark.asyncio
async def test_a_stranger_is_identified() -> None:
    async with serving() as (server, _), PeerClient(CLIENT) as client:
        assert await client.identify("127.0.0.1", server.port) == SERVER.id


@pytest.mark.asyncio
async def test_dialback_reaches_the_caller_at_its_own_address() -> None:
    async with serving() as (server, _), serving(CLIENT) as (own, _), PeerClient(CLIENT) as client:
        peer = client.at(SERVER.id, "127.0.0.1", server.port)
        assert (await peer.dialback(own.port)).ok
        wrong = await peer.dialback(server.port)
        assert not wrong.ok
        assert "another node" in wrong.error
        with pytest.raises(Refusal, match="dialbacks") as refused:
            await peer.dialback(own.port)
        assert refused.value.code is Code.RATE
        assert refused.value.retry_ms is not None


@pytest.mark.asyncio
async def test_nobody_there() -> None:
    async with serving() as (server, _):
        port = server.port
    async with PeerClient(CLIENT) as client:
        with pytest.raises(Unreachable, match="cannot be reached"):
            await client.at(SERVER.id, "127.0.0.1", port).ping()


@pytest.mark.asyncio
async def test_a_wrong_key_is_refused_before_anything_is_sent() -> None:
    async with serving() as (server, handlers), PeerClient(CLIENT) as client:
        with pytest.raises(WrongPeer, match="expected"):
            await client.at(CLIENT.id, "127.0.0.1", server.port).node()
        await asyncio.sleep(0.05)
        assert handlers.seen == []


@pytest.mark.asyncio
async def test_requests_are_counted() -> None:
    async with serving() as (server, _), PeerClient(CLIENT) as client:
        peer = client.at(SERVER.id, "127.0.0.1", server.port)
        refused = None
        for _ in range(200):
            try:
                await peer.ping()
            except Refusal as refusal:
                refused = refusal
                break
        assert refused is not None
        assert refused.code is Code.RATE


@pytest.mark.asyncio
async def test_large_answers_count_as_many_requests() -> None:
    async with serving() as (server, _), PeerClient(CLIENT) as client:
        server._rates = Rates(10, 60, lambda: 0.0)
        peer = client.at(SERVER.id, "127.0.0.1", server.port)
        for _ in range(4):  # 1 + 16 of 60 each: 8 are owed then
            assert len((await peer.result(LEASE)).output) == OUTPUT
        with pytest.raises(Refusal) as refused:
            await peer.ping()
        assert (refused.value.code, refused.value.retry_ms) == (Code.RATE, 901)


@pytest.mark.asyncio
async def test_closing_ends_connections() -> None:
    async with serving() as (server, _), PeerClient(CLIENT) as client:
        peer = client.at(SERVER.id, "127.0.0.1", server.port)
        await peer.ping()
        started = time.monotonic()
        await server.close()
        assert time.monotonic() - started < 3
        with pytest.raises(PeerError):
            await peer.ping()


def test_rates() -> None:
    now = [0.0]
    rates = Rates(2, 3, lambda: now[0])
    assert [rates.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert rates.take("b") == 0
    now[0] = 0.5
    assert [rates.take("a") for _ in range(2)] == [0, 0.5]
    rates.charge("b", 3)
    rates.charge("unknown", 3)
    assert rates.take("b") == 0.5  # two were left, three are charged, one has come since
    for key in range(2 * BUCKETS):
        rates.take(key)
    assert len(rates._buckets) == BUCKETS


@pytest.mark.parametrize(
    ("address", "prefix", "private"),
    [
        ("192.0.2.77", "192.0.2.0/24", False),
        ("192.168.1.7", "192.168.1.7", True),
        ("::ffff:192.0.2.77", "192.0.2.0/24", False),
        ("2001:db8:1:2::3", "2001:db8:1::/48", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("fd00::1", "fd00::1", True),
        ("100.64.0.1", "100.64.0.0/24", False),
        ("nonsense", "nonsense", False),
    ],
)
def test_prefixes(address: str, prefix: str, private: bool) -> None:
    assert (prefix_of(address), is_private(address)) == (prefix, private)


@pytest.mark.parametrize("place", [("127.0.0.1", 1), ("::1", 65535), ("host.example", 7411)])
def test_places_survive(place: tuple[str, int]) -> None:
    assert split_address(join_address(*place)) == place


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "host:0", "host:65536", "fe80::1"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_address(text)


def test_every_route_is_described() -> None:
    assert all(f"{route.method} {route.path}" in describe_routes() for route in ROUTES)
    assert len({route.name for route in ROUTES}) == len(ROUTES)
