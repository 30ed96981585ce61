"""Addresses as limits see them: whose neighbourhood they are in, and whether that is a network of our own."""

import ipaddress
from functools import lru_cache
from typing import Final

SEEN: Final = 4096
"""Addresses that need not be parsed again: each request asks for its caller's several times."""


@lru_cache(SEEN)
def prefix_of(address: str) -> str:
    """/24 of IPv4 and /48 of IPv6: what one customer of a provider has. On private networks, link-local and loopback the address itself."""
    found = _parse(address)
    if found is None or _is_private(found):
        return str(found or address)
    width = 24 if found.version == 4 else 48
    return str(ipaddress.ip_network((found, width), strict=False))


@lru_cache(SEEN)
def is_private(address: str) -> bool:
    """RFC 1918, unique local, link-local and loopback addresses. A shared hosting segment with public addresses is not private."""
    found = _parse(address)
    return found is not None and _is_private(found)


def split_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port`, or with a default port `host`. Raises `ValueError`."""
    host, separator, port = text.rpartition(":")
    if not separator or (host.count(":") and not host.endswith("]")):
        if default_port is None:
            raise ValueError(f"{text!r} has no port")
        return text.strip("[]"), default_port
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError(f"{number} is no port")
    return host.strip("[]"), number


def join_address(host: str, port: int) -> str:
    """The opposite of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8", "fc00::/7", "fe80::/10", "::1/128")
)


def _parse(address: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found


def _is_private(address: _Address) -> bool:
    return any(address in network for network in _PRIVATE if network.version == address.version)
