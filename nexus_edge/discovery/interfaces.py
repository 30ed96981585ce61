"""The machine's networks, and when they change."""

import asyncio
import contextlib
import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ifaddr

POLL_S: Final = 15.0
"""Between looks when the kernel reports nothing: a lost notification costs this much, and where there is no netlink it is the only way."""
SETTLE_S: Final = 0.1
"""Changes come in bursts: link, addresses, routes. One look after the burst."""

_SIOCGIFFLAGS: Final = 0x8913
_IFF_RUNNING: Final = 0x40
_INET6: Final = Path("/proc/net/if_inet6")
_TENTATIVE: Final = 0x40
_IFREQ: Final = struct.Struct("16sH14x")
_NETLINK_ROUTE: Final = 0
_GROUPS: Final = 0x1 | 0x10 | 0x100
"""Links, IPv4 addresses and IPv6 addresses: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR of rtnetlink(7)."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Interface:
    """One address of one interface."""

    name: str
    index: int
    address: str
    """Without a zone."""
    prefix_length: int
    is_running: bool
    """The interface is up, its link has a carrier, and nobody else may still turn out to have the address."""

    @property
    def network(self) -> Network:
        """What is on its link."""
        return ipaddress.ip_network((self.address, self.prefix_length), strict=False)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine is on it."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def is_link_local(self) -> bool:
        """Whether the address means something on its link only."""
        return ipaddress.ip_address(self.address).is_link_local


def interfaces() -> frozenset[Interface]:
    """Every address of every interface, ready or not."""
    found = []
    tentative = _tentative()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for adapter in ifaddr.get_adapters():
            running = _is_running(control, adapter.name)
            for ip in adapter.ips:
                address = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
                ready = running and (adapter.name, ipaddress.ip_address(address)) not in tentative
                found.append(Interface(adapter.name, adapter.index or 0, address, ip.network_prefix, ready))
    return frozenset(found)


def _tentative() -> frozenset[tuple[str, ipaddress.IPv6Address]]:
    """IPv6 addresses that cannot be bound yet, because the kernel is asking the link whether another machine has them."""
    try:
        lines = _INET6.read_text().splitlines()
    except OSError:  # a kernel without IPv6
        return frozenset()
    fields = [line.split() for line in lines]
    return frozenset(
        (name, ipaddress.IPv6Address(int(number, 16))) for number, _, _, _, flags, name in fields if int(flags, 16) & _TENTATIVE
    )


def _is_running(control: socket.socket, name: str) -> bool:
    try:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(name.encode()[:15], 0))
    except OSError:  # gone between the listing and the question
        return False
    return bool(_IFREQ.unpack(answer[: _IFREQ.size])[1] & _IFF_RUNNING)


class InterfaceWatch:
    """The machine's networks: `current`, and `changed()` waits for a change and returns the new set. Use it as a context."""

    def __init__(self, poll_s: float = POLL_S) -> None:
        self._poll_s = poll_s
        self._netlink = _netlink()
        self._noticed = asyncio.Event()
        self.current: frozenset[Interface] = frozenset()

    async def __aenter__(self) -> "InterfaceWatch":
        if self._netlink is not None:
            asyncio.get_running_loop().add_reader(self._netlink, self._notice)
        self.current = await asyncio.to_thread(interfaces)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._netlink is not None:
            asyncio.get_running_loop().remove_reader(self._netlink)
            self._netlink.close()

    async def changed(self) -> frozenset[Interface]:
        """The new set, as soon as it differs from the last one."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._noticed.wait()
                    await asyncio.sleep(SETTLE_S)
            self._noticed.clear()
            found = await asyncio.to_thread(interfaces)
            if found != self.current:
                self.current = found
                return found

    def _notice(self) -> None:
        """What the kernel says is not read closely: that it says something is enough, and a lost message (ENOBUFS) means the same."""
        assert self._netlink is not None
        with contextlib.suppress(OSError):
            while self._netlink.recv(65536):
                pass
        self._noticed.set()


def _netlink() -> socket.socket | None:
    """Notifications of the kernel; None where a sandbox forbids them."""
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    except OSError:
        return None
    try:
        opened.bind((0, _GROUPS))
    except OSError:
        opened.close()
        return None
    return opened
