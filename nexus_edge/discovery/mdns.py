"""Multicast DNS: announces this node on every network of the machine, and tells the directory who else announces itself.

`zeroconf` sends, receives, answers and defends the limits of the protocol. Its browser is not used: it plans a refresh for every name it ever
heard, which a hostile neighbour can make as many as it likes. `Announcements` holds few, and the library's cache is emptied of the rest.
"""

import asyncio
import contextlib
import ipaddress
import random
import socket
from collections import Counter
from collections.abc import Awaitable
from enum import StrEnum
from typing import Any, Final

import structlog
from zeroconf import (  # type: ignore[attr-defined]  # questions and records are its public data
    DNSOutgoing,
    DNSQuestion,
    Error,
    IPVersion,
    RecordUpdate,
    RecordUpdateListener,
    ServiceInfo,
    Zeroconf,
    current_time_millis,
)
from zeroconf.asyncio import AsyncZeroconf

from nexus_edge.discovery.announcements import SERVICE, Announcements, Sighting, text_of
from nexus_edge.discovery.directory import PeerDirectory
from nexus_edge.discovery.interfaces import Interface, InterfaceWatch
from nexus_edge.discovery.peers import ADDRESSES_PER_PEER, Endpoint, Source
from nexus_edge.identity import short_id

FIRST_QUESTION_S: Final = (0.02, 0.12)
"""RFC 6762, section 5.2: so that many who start at one moment do not ask at one moment."""
QUESTIONS_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 300.0)
"""Between questions, each at least twice the one before; then every five minutes, for announcements that were lost."""
MISSING: Final = 16
"""Questions for records of single instances that go with one question."""
GOODBYE_S: Final = 2.0
"""For the goodbyes: three, an eighth of a second apart."""
PORT: Final = 5353
RETRY_S: Final = 15.0
"""After multicast could not be opened, if no network changes before."""

_QUERY: Final = 0
_IN: Final = 1
_UNICAST_ANSWER: Final = 0x8000
"""The QU bit: RFC 6762, section 5.4."""
_TYPES: Final = {"SRV": (33,), "TXT": (16,), "ADDRESS": (1, 28)}
_PTR: Final = 12

log = structlog.get_logger("discovery")


class MdnsState(StrEnum):
    """Whether neighbours can be found."""

    STARTING = "starting"
    ON = "on"
    NO_NETWORK = "no network"
    """No interface has an address; it goes on by itself when one has."""
    UNAVAILABLE = "unavailable"
    """The port or multicast cannot be used: `Mdns.problem` says why. It is tried again."""
    OFF = "off"


class Mdns:
    """Announces and listens until its task is cancelled, then says goodbye."""

    def __init__(self, directory: PeerDirectory, port: int, *, host: str = "") -> None:
        """`host` and `port` are what the server listens at; an empty host or a wildcard is every address of its family."""
        self.state = MdnsState.STARTING
        self.problem = ""
        self._directory = directory
        self._port = port
        self._host = host
        self._instance = f"{short_id(directory.me)}.{SERVICE}"
        self._heard = Announcements(self._instance)
        self._told: dict[str, Sighting] = {}
        self._networks: tuple[Interface, ...] = ()
        self._own: frozenset[Any] = frozenset()

    async def run(self) -> None:
        """Announce and listen for ever. A machine without multicast is a state, not an error."""
        try:
            async with InterfaceWatch() as watch:
                while True:
                    await self._serve(watch)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(RETRY_S):
                            await watch.changed()
        finally:
            self.state = MdnsState.OFF

    async def _serve(self, watch: InterfaceWatch) -> None:
        """Until multicast fails; returns then."""
        self._networks = tuple(watch.current)
        try:
            families = _families()
            multicast = AsyncZeroconf(interfaces=_senders(self._usable()), ip_version=families)
        except OSError as failed:
            self._fail(str(failed))
            return
        try:
            await multicast.zeroconf.async_wait_for_start()
            asking = _Asking(multicast.zeroconf, self._heard)
            multicast.zeroconf.async_add_listener(_Listener(self, asking), None)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asking.run(), name="mdns questions")
                tasks.create_task(self._follow(multicast, families, watch, asking), name="mdns announcements")
        except* (OSError, Error) as failed:
            self._fail(str(failed.exceptions[0]))
        finally:
            with contextlib.suppress(TimeoutError, OSError, Error):
                async with asyncio.timeout(GOODBYE_S):
                    await multicast.async_close()

    async def _follow(self, multicast: AsyncZeroconf, families: IPVersion, watch: InterfaceWatch, asking: "_Asking") -> None:
        """Announce, and again whenever the networks change."""
        info: ServiceInfo | None = None
        repeats: asyncio.Future[Any] | None = None
        try:
            while True:
                before, info = info, self._info() or info
                if repeats is not None:
                    repeats.cancel()  # they say what was true before
                if info is not None:
                    self._own = frozenset([info.dns_pointer(), info.dns_service(), info.dns_text(), *info.dns_addresses()])
                    repeats = asyncio.ensure_future(await _announce(multicast, info, is_new=before is None))
                self.state = MdnsState.ON if self._usable() else MdnsState.NO_NETWORK
                self.problem = ""
                await multicast.async_update_interfaces(_senders(self._usable()), families)
                self._networks = tuple(await watch.changed())
                log.info("networks changed", addresses=sorted({interface.address for interface in self._usable()}))
                asking.begin()
                self._directory.stir()
        finally:
            if repeats is not None:
                repeats.cancel()

    def heard(self, records: list[Any], zeroconf: Zeroconf, asking: "_Asking") -> None:
        """Records came in, together: tell the directory, and let the library forget what is not needed."""
        now = current_time_millis()
        foreign = [record for record in records if record not in self._own]
        names, surplus = self._heard.take(foreign, now)
        for name in names:
            if self._heard.is_over(name, now):
                self._tell(name, None)
                surplus += self._heard.drop(name)
            elif (sighting := self._heard.sighting(name)) is not None:
                self._tell(name, sighting)
            else:
                asking.complete()
        for gone in [name for name in self._told if name not in self._heard]:
            del self._told[gone]
        # Records of no instance that is held have no use here; kept, a neighbour could make the library hold 10,000 of 9 KB.
        zeroconf.cache.async_remove_records([record for record in set(surplus) if zeroconf.cache.async_get_unique(record) is not None])

    def _tell(self, name: str, sighting: Sighting | None) -> None:
        before = self._told.pop(name, None)
        if sighting is not None and sighting.mesh == self._directory.mesh:
            endpoints = [endpoint for endpoint in sighting.endpoints if self._is_near(endpoint)]
            for endpoint in endpoints[:ADDRESSES_PER_PEER]:
                self._directory.add_hint(Source.MDNS, endpoint.host, endpoint.port, sighting.node)
            self._told[name] = sighting
        now = self._told.get(name)
        if before is None or before.node is None:
            return
        for endpoint in before.endpoints:
            if now is None or now.node != before.node or endpoint not in now.endpoints:
                self._directory.withdraw(Source.MDNS, before.node, endpoint)

    def _is_near(self, endpoint: Endpoint) -> bool:
        """Whether the address is on a link of ours, as all are that multicast names: else a neighbour could have us dial anyone."""
        host, _, zone = endpoint.host.partition("%")
        address = ipaddress.ip_address(host)
        if any(host == interface.address for interface in self._networks) and endpoint.port == self._port:
            return False
        if address.version == 6 and address.is_link_local:
            return bool(zone)
        return any(address in interface.network for interface in self._usable())

    def _usable(self) -> list[Interface]:
        """The networks others are on; only with none, this machine itself: two agents find each other without a network."""
        ready = [interface for interface in self._networks if interface.is_running]
        return [interface for interface in ready if not interface.is_loopback] or ready

    def _info(self) -> ServiceInfo | None:
        """What is announced: addresses that the server listens at, those of a link last."""
        candidates = [interface for interface in self._usable() if self._listens_at(interface)]
        addresses = dict.fromkeys(
            interface.address for interface in sorted(candidates, key=lambda one: (one.is_link_local, one.name, one.address))
        )
        if not addresses:
            return None
        node = self._directory.me
        return ServiceInfo(
            SERVICE,
            self._instance,
            port=self._port,
            properties=text_of(node, self._directory.mesh),
            server=f"nexus-edge-{short_id(node)}.local.",  # the host's own name is nobody's business
            parsed_addresses=list(addresses)[:ADDRESSES_PER_PEER],
        )

    def _listens_at(self, interface: Interface) -> bool:
        if not self._host:
            return True
        listening, address = ipaddress.ip_address(self._host), ipaddress.ip_address(interface.address)
        return listening.version == address.version if listening.is_unspecified else listening == address

    def _fail(self, why: str) -> None:
        if why != self.problem:
            log.warning("no multicast", reason=why)
        self.state, self.problem = MdnsState.UNAVAILABLE, why


class _Listener(RecordUpdateListener):
    """Gathers the records of one datagram."""

    def __init__(self, mdns: Mdns, asking: "_Asking") -> None:
        self._mdns = mdns
        self._asking = asking
        self._records: list[Any] = []

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:  # noqa: ARG002  # the library's signature
        """Before the library's cache has them."""
        self._records += [update.new for update in records]

    def async_update_records_complete(self) -> None:
        """After it has."""
        records, self._records = self._records, []
        self._mdns.heard(records, self._asking.zeroconf, self._asking)


class _Asking:
    """Asks who is there: at once when it begins and after a change, then ever less often."""

    def __init__(self, zeroconf: Zeroconf, heard: Announcements) -> None:
        self.zeroconf = zeroconf
        self._heard = heard
        self._wanted = asyncio.Event()
        self._step = 0

    def begin(self) -> None:
        """Ask from the start again: there may be other neighbours now."""
        self._step = 0
        self._wanted.set()

    def complete(self) -> None:
        """An instance lacks records: ask for them soon."""
        if self._step:
            self._wanted.set()

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await asyncio.sleep(random.uniform(*FIRST_QUESTION_S))
            self._wanted.clear()
            self._ask()
            pause = QUESTIONS_S[min(self._step, len(QUESTIONS_S) - 1)]
            self._step += 1
            await asyncio.sleep(QUESTIONS_S[0])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause - QUESTIONS_S[0]):
                    await self._wanted.wait()

    def _ask(self) -> None:
        now = current_time_millis()
        out = DNSOutgoing(_QUERY)
        out.add_question(DNSQuestion(SERVICE, _PTR, _IN))
        if self._step == 0:
            # Who may answer to us alone does so at once; an answer to everybody waits for others first. On one machine several agents share
            # the port, and an answer to one of them may reach another: so both are asked for.
            out.add_question(DNSQuestion(SERVICE, _PTR, _IN | _UNICAST_ANSWER))
        for name, kind in self._heard.missing()[:MISSING]:
            for type_ in _TYPES[kind]:
                out.add_question(DNSQuestion(name, type_, _IN))
        for pointer in self._heard.known_answers(now):
            out.add_answer_at_time(pointer, now)
        self.zeroconf.async_send(out)


def _families() -> IPVersion:
    """What the kernel has. Raises `OSError` if another program has the port to itself: the library would leave its socket open then."""
    try:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    except OSError:
        return IPVersion.V4Only
    with opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind(("", PORT))
    return IPVersion.All


async def _announce(multicast: AsyncZeroconf, info: ServiceInfo, *, is_new: bool) -> Awaitable[Any]:
    """Announce; what is returned repeats it.

    The name comes from a key, so that no two honest nodes have one name: there is nothing to probe for, which would take a second, and a
    neighbour that claims the name does not silence us.
    """
    if is_new:
        return await multicast.async_register_service(info, cooperating_responders=True)
    return await multicast.async_update_service(info)


def _senders(usable: list[Interface]) -> list[str | int | tuple[tuple[str, int, int], int]]:
    """Where multicast is sent from: every IPv4 address, and one IPv6 address of each interface, of its link if no other interface has it too."""
    found: list[str | int | tuple[tuple[str, int, int], int]] = [one.address for one in usable if ":" not in one.address]
    counts = Counter(one.address for one in usable)
    six = {
        one.name: one.address
        for one in sorted(usable, key=lambda one: (one.is_link_local, one.address))
        if ":" in one.address and not one.is_loopback and counts[one.address] == 1
    }
    return [*found, *six.values()]
