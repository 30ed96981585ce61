"""What multicast records amount to, in any order, from anyone."""

import base64
import ipaddress
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import DNSAddress, DNSPointer, DNSService, DNSText, current_time_millis  # type: ignore[attr-defined]

from nexus_edge.discovery.announcements import ADDRESSES, INSTANCES, SERVICE, TEXT_LIMIT, Announcements, text_of
from nexus_edge.discovery.peers import Endpoint
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.types import NodeId

NODE = NodeKey.from_seed(b"\2" * 32).id
NAME = f"{short_id(NODE)}.{SERVICE}"
IN, UNIQUE = 1, 0x8001


def text_record(values: dict[str, str]) -> bytes:
    items = [f"{key}={value}".encode() for key, value in values.items()]
    return b"".join(bytes([len(item)]) + item for item in items)


def announced(
    name: str = NAME,
    server: str = "attic.local.",
    port: int = 7411,
    text: bytes | None = None,
    hosts: tuple[str, ...] = ("10.0.0.9",),
    ttl: int = 120,
) -> list[Any]:
    return [
        DNSPointer(SERVICE, 12, IN, ttl, name),
        DNSService(name, 33, UNIQUE, ttl, 0, 0, port, server),
        DNSText(name, 16, UNIQUE, ttl, text_record(text_of(NODE, "home")) if text is None else text),
        *(DNSAddress(server, 1 if "." in host else 28, UNIQUE, ttl, ipaddress.ip_address(host).packed, scope_id=2) for host in hosts),
    ]


@pytest.fixture
def heard() -> Announcements:
    return Announcements(f"me.{SERVICE}")


def now() -> float:
    return float(current_time_millis())


@given(st.permutations(range(5)), st.integers(0, 5))
def test_records_in_any_order_and_any_number_of_datagrams(order: list[int], cut: int) -> None:
    heard = Announcements(f"me.{SERVICE}")
    records = announced(hosts=("10.0.0.9", "fe80::9"))
    shuffled = [records[number] for number in order]
    for _ in range(3):  # what came before the record that names it is asked for, and comes again
        heard.take(shuffled[:cut], now())
        heard.take(shuffled[cut:], now())
    found = heard.sighting(NAME)
    assert found is not None
    assert (found.node, found.mesh) == (NODE, "home")
    assert set(found.endpoints) == {Endpoint("10.0.0.9", 7411), Endpoint("fe80::9%2", 7411)}


def test_what_is_incomplete_is_asked_for(heard: Announcements) -> None:
    pointer, service, text, address = announced()
    heard.take([pointer], now())
    assert heard.missing() == [(NAME, "SRV"), (NAME, "TXT")]
    heard.take([service], now())
    assert heard.missing() == [("attic.local.", "ADDRESS"), (NAME, "TXT")]
    heard.take([text, address], now())
    assert heard.missing() == []


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\0", b"\xff", b"\5abc", text_record({"v": "2", "id": "x"}), text_record({"id": "x"}), b"\4v=\xff\xfe",
        text_record(text_of(NodeId(b"\7" * 32), "")),
    ],
)  # fmt: skip
def test_text_that_is_no_announcement(heard: Announcements, text: bytes) -> None:
    heard.take(announced(text=text), now())
    assert heard.sighting(NAME) is None


@pytest.mark.parametrize("claimed", ["", "x" * 52, "a" * 52, "é" * 52, base64.b32encode(bytes(32)).decode().rstrip("=")])
def test_an_id_that_is_none_leaves_an_address_to_ask(heard: Announcements, claimed: str) -> None:
    heard.take(announced(text=text_record({"v": "1", "id": claimed})), now())
    found = heard.sighting(NAME)
    assert found is not None
    assert found.node is None


def test_a_server_that_moves_brings_its_addresses_along(heard: Announcements) -> None:
    heard.take(announced(), now())
    heard.take(announced(server="cellar.local.", hosts=("10.0.0.7",)), now())
    found = heard.sighting(NAME)
    assert found is not None
    assert [endpoint.host for endpoint in found.endpoints] == ["10.0.0.7"]


def test_a_new_announcement_flushes_addresses_that_it_leaves_out(heard: Announcements) -> None:
    old = announced(hosts=("10.0.0.9", "fd00::9"))
    later = announced(hosts=("10.0.0.7",))
    heard.take(old, now())
    for record in old:
        record.created -= 5000
    _, surplus = heard.take(later, now())
    found = heard.sighting(NAME)
    assert found is not None
    assert {endpoint.host for endpoint in found.endpoints} == {"10.0.0.7", "fd00::9"}
    assert old[3] in surplus


def test_a_goodbye_ends_an_instance(heard: Announcements) -> None:
    heard.take(announced(), now())
    names, _ = heard.take(announced(ttl=0)[:1], now())
    assert names == {NAME}
    assert heard.is_over(NAME, now())
    assert len(heard.drop(NAME)) == 4
    assert len(heard) == 0


def test_a_goodbye_of_a_stranger_is_nothing(heard: Announcements) -> None:
    names, surplus = heard.take(announced(ttl=0)[:1], now())
    assert (names, len(surplus), len(heard)) == (set(), 1, 0)


def test_our_own_name_is_not_held(heard: Announcements) -> None:
    heard.take(announced(name=f"ME.{SERVICE}"), now())
    assert len(heard) == 0


def test_records_that_are_too_large_or_of_others_are_surplus(heard: Announcements) -> None:
    strangers = [
        *announced(name="printer._ipp._tcp.local."),
        DNSPointer(SERVICE, 12, IN, 120, f"{'x' * 60}.{'y' * 60}.{SERVICE}"),
        DNSText("attic.local.", 16, IN, 120, bytes(100)),
    ]
    assert len(heard.take(strangers, now())[1]) == len(strangers)
    _, surplus = heard.take(announced(text=bytes(TEXT_LIMIT + 1)), now())
    assert [type(record) for record in surplus] == [DNSText]


def test_thousands_of_names_leave_the_latest(heard: Announcements) -> None:
    held = 0
    for number in range(20 * INSTANCES):
        batch = announced(name=f"{number}.{SERVICE}", server=f"s{number}.local.")
        _, surplus = heard.take(batch, now())
        held += len(batch) - len(surplus)
    assert len(heard) == INSTANCES
    assert held == 4 * INSTANCES
    assert f"{20 * INSTANCES - 1}.{SERVICE}" in heard


def test_one_server_has_few_addresses_and_every_replaced_record_is_surplus(heard: Announcements) -> None:
    held = 0
    for number in range(1000):
        batch = announced(port=1 + number, text=text_record({"v": "1", "n": str(number)}), hosts=(f"10.0.{number // 250}.{number % 250}",))
        _, surplus = heard.take(batch, now())
        held += len(batch) - len(surplus)
    # Pointers are equal, and replace each other in the library's cache as well.
    assert held - 999 == 3 + ADDRESSES
    found = heard.sighting(NAME)
    assert found is not None
    assert len(found.endpoints) == ADDRESSES


@given(st.randoms(use_true_random=False))
def test_nothing_that_is_said_breaks_the_table(chance: random.Random) -> None:
    heard = Announcements(f"me.{SERVICE}")
    names = [NAME, f"other.{SERVICE}", f"me.{SERVICE}", SERVICE, "", "attic.local."]
    for _ in range(25):
        batch = [
            record
            for record in announced(
                name=chance.choice(names), server=chance.choice(names), port=chance.choice([0, 1, 65535]), text=chance.randbytes(chance.randrange(9)),
                hosts=("10.0.0.9", "fe80::9"), ttl=chance.choice([0, 1, 120]),
            )
            if chance.random() < 0.7
        ]  # fmt: skip
        touched, _ = heard.take(batch, now())
        for name in touched:
            heard.sighting(name)
        if chance.random() < 0.2:
            heard.drop(chance.choice(names))
    for name in names:
        heard.drop(name)
    assert len(heard) == 0
    assert heard._servers == {}
