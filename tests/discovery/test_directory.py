"""The table of peers: what sources and reports make of it, and its bounds."""

import asyncio
from dataclasses import dataclass

import pytest

from nexus_edge.discovery import Endpoint, Peer, PeerDirectory, Source, State
from nexus_edge.discovery.hints import UNPROVEN, UNPROVEN_PER_PREFIX, Unproven
from nexus_edge.discovery.peers import ADDRESSES_PER_PEER, dialable
from nexus_edge.discovery.records import BadRecord
from nexus_edge.identity import NodeKey
from nexus_edge.types import Digest, NodeId, UnixMs
from nexus_edge.wire.objects import NodeRecord
from nexus_edge.wire.signing import Signed, sign

ME = NodeKey.from_seed(b"\1" * 32)
PEER = NodeKey.from_seed(b"\2" * 32)
HOUR = 3_600_000


@dataclass
class Clock:
    seconds: float = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> int:
        return round(1000 * self.seconds)


def directory_at(clock: Clock, limit: int = 10_000) -> PeerDirectory:
    return PeerDirectory(ME.id, "home", limit=limit, monotonic=clock.monotonic, wall=clock.wall, jitter=lambda: 0.5)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(clock: Clock) -> PeerDirectory:
    return directory_at(clock)


def row(directory: PeerDirectory, node: NodeId = PEER.id) -> Peer:
    found = directory.get(node)
    assert found is not None
    return found


def bring_up(directory: PeerDirectory, node: NodeId, host: str, source: Source = Source.MDNS) -> None:
    directory.add_hint(source, host, 7411, node)
    directory.report_success(node, 2.0, endpoint=Endpoint(host, 7411))
    directory.report_success(node, 2.0, endpoint=Endpoint(host, 7411))


def take_down(directory: PeerDirectory, node: NodeId, clock: Clock) -> None:
    for _ in range(3):
        clock.seconds += 5
        directory.report_failure(node, "nobody there")


def record_of(key: NodeKey, signed_at: int, **changes: object) -> Signed[NodeRecord]:
    fields: dict[str, object] = {
        "iss": key.id, "at": UnixMs(signed_at), "seq": signed_at, "exp": UnixMs(signed_at + HOUR), "mesh": "home", "proto": (1,), "addrs": ("10.0.0.9:7411",),
        "udp": 0, "name": "x", "sw": "", "caps": Digest(bytes(32)),
    }  # fmt: skip
    return sign(key, NodeRecord(**(fields | changes)))  # type: ignore[arg-type]


async def due(directory: PeerDirectory) -> list[object]:
    async with asyncio.timeout(0.2):
        return list(await directory.due())


def test_sources_of_one_address_are_one_row(directory: PeerDirectory) -> None:
    directory.add_hint(Source.MDNS, "10.0.0.9", 7411, PEER.id)
    directory.add_hint(Source.STATIC, "10.0.0.9", 7411, PEER.id)
    directory.add_hint(Source.MDNS, "fe80::1%2", 7411, PEER.id)
    assert [str(address.endpoint) for address in row(directory).addresses] == ["10.0.0.9:7411", "[fe80::1%2]:7411"]
    assert row(directory).addresses[0].sources == {Source.MDNS, Source.STATIC}
    assert row(directory).found_by is Source.MDNS


def test_an_address_that_answered_goes_before_those_that_did_not(directory: PeerDirectory) -> None:
    directory.add_hint(Source.STATIC, "10.0.0.1", 7411, PEER.id)
    directory.add_hint(Source.EXCHANGE, "10.0.0.2", 7411, PEER.id)
    directory.report_success(PEER.id, 3.0, endpoint=Endpoint("10.0.0.2", 7411))
    assert row(directory).addresses[0].endpoint.host == "10.0.0.2"
    directory.report_silent(PEER.id, [Endpoint("10.0.0.2", 7411)])
    assert row(directory).addresses[0].endpoint.host == "10.0.0.1"


def test_a_row_holds_few_addresses_and_keeps_the_one_that_answered(directory: PeerDirectory) -> None:
    bring_up(directory, PEER.id, "10.0.0.1")
    for number in range(100):
        directory.add_hint(Source.EXCHANGE, f"10.1.0.{number}", 7411, PEER.id)
    hosts = [address.endpoint.host for address in row(directory).addresses]
    assert len(hosts) == ADDRESSES_PER_PEER
    assert hosts[0] == "10.0.0.1"


def test_our_own_id_is_nobody(directory: PeerDirectory) -> None:
    directory.add_hint(Source.MDNS, "10.0.0.9", 7411, ME.id)
    assert directory.snapshot() == ()


def test_reach_tells_who_dials_whom(directory: PeerDirectory, clock: Clock) -> None:
    bring_up(directory, PEER.id, "10.0.0.1")
    assert row(directory).reach == "out"
    directory.report_mutual(PEER.id, True)
    assert row(directory).reach == "both"
    take_down(directory, PEER.id, clock)
    assert row(directory).reach == "in"


def test_a_goodbye_takes_nobody_down_but_is_checked(directory: PeerDirectory, clock: Clock) -> None:
    bring_up(directory, PEER.id, "10.0.0.1")
    directory.withdraw(Source.MDNS, PEER.id)
    assert row(directory).state is State.UP
    assert row(directory).reachability.probe_at == clock.seconds + 1
    assert [address.endpoint.host for address in row(directory).addresses] == ["10.0.0.1"]


def test_a_goodbye_of_one_who_never_answered_ends_the_row(directory: PeerDirectory) -> None:
    directory.add_hint(Source.MDNS, "10.0.0.1", 7411, PEER.id)
    directory.withdraw(Source.MDNS, PEER.id)
    assert directory.get(PEER.id) is None


def test_who_never_answered_is_forgotten_when_down(directory: PeerDirectory, clock: Clock) -> None:
    directory.add_hint(Source.MDNS, "10.0.0.1", 7411, PEER.id)
    take_down(directory, PEER.id, clock)
    assert directory.get(PEER.id) is None


def test_who_answered_once_is_forgotten_after_a_day(directory: PeerDirectory, clock: Clock) -> None:
    bring_up(directory, PEER.id, "10.0.0.1")
    take_down(directory, PEER.id, clock)
    assert row(directory).state is State.DOWN
    clock.seconds += 86_400
    directory.report_failure(PEER.id, "nobody there")
    assert directory.get(PEER.id) is None


def test_statics_never_expire(directory: PeerDirectory, clock: Clock) -> None:
    directory.add_hint(Source.STATIC, "10.0.0.1", 7411, PEER.id)
    for _ in range(5):
        take_down(directory, PEER.id, clock)
        clock.seconds += 86_400
    assert row(directory).state is State.DOWN
    assert row(directory).problem == "nobody there"


@pytest.mark.asyncio
async def test_a_static_address_without_an_id_follows_who_answers_there(directory: PeerDirectory, clock: Clock) -> None:
    other = NodeKey.from_seed(b"\3" * 32).id
    endpoint = Endpoint("attic.lan", 7411)
    directory.add_hint(Source.STATIC, *endpoint)
    assert len(await due(directory)) == 1
    directory.report_identity(endpoint, PEER.id)
    bring_up(directory, PEER.id, *endpoint[:1], Source.STATIC)
    take_down(directory, PEER.id, clock)
    clock.seconds += 60
    assert endpoint in [getattr(one, "endpoint", None) for one in await due(directory)]
    directory.report_identity(endpoint, other)
    assert [address.endpoint for address in row(directory, other).addresses] == [endpoint]
    assert row(directory).addresses == () or not row(directory).is_static


@pytest.mark.asyncio
async def test_our_own_address_in_the_settings_is_let_go(directory: PeerDirectory) -> None:
    directory.add_hint(Source.STATIC, "10.0.0.1", 7411)
    directory.report_identity(Endpoint("10.0.0.1", 7411), ME.id)
    assert directory.unidentified() == ()


@pytest.mark.asyncio
async def test_a_row_is_due_once_until_its_report(directory: PeerDirectory, clock: Clock) -> None:
    directory.add_hint(Source.MDNS, "10.0.0.1", 7411, PEER.id)
    assert [getattr(one, "id", None) for one in await due(directory)] == [PEER.id]
    directory.add_hint(Source.MDNS, "10.0.0.1", 7411, PEER.id)
    with pytest.raises(TimeoutError):
        await due(directory)
    directory.report_failure(PEER.id, "nobody there")
    clock.seconds += 1
    assert len(await due(directory)) == 1


@pytest.mark.asyncio
async def test_a_waiting_prober_wakes_for_a_hint(directory: PeerDirectory) -> None:
    waiting = asyncio.create_task(directory.due())
    await asyncio.sleep(0)
    directory.add_hint(Source.MDNS, "10.0.0.1", 7411, PEER.id)
    assert len(await asyncio.wait_for(waiting, 1)) == 1


@pytest.mark.asyncio
async def test_watchers_get_the_ids_that_changed(directory: PeerDirectory) -> None:
    with directory.watch() as changes:
        directory.add_hint(Source.MDNS, "10.0.0.1", 7411, PEER.id)
        directory.report_success(PEER.id, 2.0)
        assert await asyncio.wait_for(anext(changes), 1) == {PEER.id}


def test_a_full_table_lets_the_least_useful_go(clock: Clock) -> None:
    directory = directory_at(clock, limit=20)
    keys = [NodeId(bytes([number]) * 32) for number in range(1, 60)]
    directory.add_hint(Source.STATIC, "10.9.0.1", 7411, PEER.id)
    for number, node in enumerate(keys[:10]):
        bring_up(directory, node, f"10.0.0.{number}")
    take_down(directory, keys[0], clock)
    for number, node in enumerate(keys[10:]):
        directory.add_hint(Source.EXCHANGE, f"10.2.0.{number}", 7411, node)
    assert len(directory.snapshot()) <= 20
    assert row(directory).is_static
    assert [node for node in keys[:10] if directory.get(node)] == keys[:10]

    for number, node in enumerate(keys[10:]):
        bring_up(directory, node, f"10.2.0.{number}")
    assert row(directory).is_static
    assert len(directory.snapshot()) <= 20


def test_what_never_answered_is_bounded_in_all_and_by_prefix(directory: PeerDirectory) -> None:
    for number in range(2 * UNPROVEN):
        node = NodeId(number.to_bytes(32, "big"))
        directory.add_hint(Source.MDNS, f"10.0.{number % 4}.9", 7411, node)
        directory.add_hint(Source.MDNS, "10.0.8.8", 1 + number)
    assert len(directory.snapshot()) == 4 * UNPROVEN_PER_PREFIX
    assert len(directory.unidentified()) == UNPROVEN_PER_PREFIX
    for number in range(2 * UNPROVEN):
        directory.add_hint(Source.MDNS, f"10.{number // 250}.{number % 250}.9", 7411, NodeId((1 << 128 | number).to_bytes(32, "big")))
    assert len(directory.snapshot()) + len(directory.unidentified()) <= UNPROVEN


def test_the_oldest_of_the_fullest_prefix_goes() -> None:
    pool = Unproven[str]()
    for number in range(UNPROVEN - 2):
        assert pool.add(f"few {number}", f"10.0.0.{number}") is None
    assert pool.add("first", "10.9.9.9") is None
    assert pool.add("second", "10.9.9.9") is None
    assert pool.add("new", "10.8.8.8") == "first"
    pool.discard("new")
    pool.discard("new")
    assert len(pool) == UNPROVEN - 1


def test_a_record_gives_addresses_to_dial(directory: PeerDirectory, clock: Clock) -> None:
    directory.keep_record(
        record_of(PEER, clock.wall(), addrs=("10.0.0.9:7411", "[fd00::9]:7411", "no address", "127.0.0.1:22")), Source.EXCHANGE
    )
    assert {address.endpoint.host for address in row(directory).addresses} == {"10.0.0.9", "fd00::9"}
    assert row(directory).record is not None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mesh": "work"}, "the mesh 'work'"),
        ({"at": 10**9, "exp": 10**9 + 1}, "in the future"),
        ({"exp": 10**9}, "a day at most"),
        ({"exp": 1}, "a day at most"),
        ({"seq": 1}, "a newer one"),
    ],
)
def test_bad_records_are_not_kept(directory: PeerDirectory, clock: Clock, changes: dict[str, object], why: str) -> None:
    directory.keep_record(record_of(PEER, clock.wall()), Source.EXCHANGE)
    with pytest.raises(BadRecord, match=why):
        directory.keep_record(record_of(PEER, clock.wall(), **changes), Source.EXCHANGE)


def test_a_peer_is_of_another_mesh_by_its_own_word_only(directory: PeerDirectory, clock: Clock) -> None:
    bring_up(directory, PEER.id, "10.0.0.9")
    ours, theirs = record_of(PEER, clock.wall()), record_of(PEER, clock.wall(), mesh="work")
    directory.keep_record(ours, None)
    with pytest.raises(BadRecord, match="the mesh 'work'"):
        directory.keep_record(theirs, Source.EXCHANGE)
    assert row(directory).elsewhere is None
    with pytest.raises(BadRecord, match="the mesh 'work'"):
        directory.keep_record(theirs, None)
    assert (row(directory).elsewhere, row(directory).state, row(directory).record) == ("work", State.UP, ours)
    directory.keep_record(ours, Source.EXCHANGE)
    assert row(directory).elsewhere == "work"
    directory.keep_record(ours, None)
    assert row(directory).elsewhere is None


def test_an_expired_record_is_not_kept(directory: PeerDirectory, clock: Clock) -> None:
    signed = record_of(PEER, clock.wall())
    clock.seconds += 3 * 3600
    with pytest.raises(BadRecord, match="expired"):
        directory.keep_record(signed, Source.EXCHANGE)


def test_a_sample_has_records_of_reachable_peers_that_are_not_known_yet(directory: PeerDirectory, clock: Clock) -> None:
    keys = [NodeKey.from_seed(bytes([number]) * 32) for number in range(10, 16)]
    for number, key in enumerate(keys):
        directory.keep_record(record_of(key, clock.wall(), addrs=(f"10.0.0.{number}:7411",)), Source.EXCHANGE)
    for number, key in enumerate(keys[:4]):
        bring_up(directory, key.id, f"10.0.0.{number}")
    found = {signed.issuer for signed in directory.sample([keys[0].id], 32)}
    assert found == {key.id for key in keys[1:4]}
    assert len(directory.sample([], 2)) == 2


@pytest.mark.parametrize(
    "text",
    ["localhost:1", "evil.example:7411", "127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "169.254.1.1:1", "[fe80::1]:1", "224.0.0.1:1", "0.0.0.0:1",
     "255.255.255.255:1", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", ""],
)  # fmt: skip
def test_strangers_addresses_that_are_not_dialled(text: str) -> None:
    assert dialable([text]) == []


def test_many_peers_are_probed_less_often(directory: PeerDirectory, clock: Clock) -> None:
    for number in range(400):
        bring_up(directory, NodeId((number + 1).to_bytes(32, "big")), f"10.{number // 250}.{number % 250}.1")
    last = row(directory, NodeId((400).to_bytes(32, "big")))
    assert last.reachability.probe_at - clock.seconds == pytest.approx(400 / 8, rel=0.02)
