"""IP addresses of the public internet, told from all others; pure, and alike in every version of Python.

`ipaddress.is_global` follows IANA's registries as they were when that Python was made, and takes addresses
that carry an IPv4 address for public ones: a translator or a tunnel behind them leads anywhere.
"""

import ipaddress
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

# IANA IPv4 Special-Purpose Address Registry, multicast (RFC 5771) and class E (RFC 1112).
_NOT_PUBLIC_4 = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, metadata services of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments, some clouds' metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# All other global unicast addresses of IPv6 are in here (RFC 4291).
_GLOBAL_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
# Networks whose addresses carry an IPv4 address, and the bits below that address.
_EMBEDDING = (
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped (RFC 4291)
    (IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated (RFC 2765)
    (IPv6Network("::/96"), 0),  # IPv4-compatible (RFC 4291), :: and ::1 among them
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, well-known prefix (RFC 6052)
    (IPv6Network("2002::/16"), 80),  # 6to4 (RFC 3056)
)


# Characters of the longest IP address without a zone.
_LONGEST = 45


def is_private_address(address: str) -> bool:
    """Return True for an IP address that is not public; raise ValueError if it is no IP address."""
    return _remembered(address) if len(address) <= _LONGEST else _is_private(address)


def _is_private(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        embedded = _embedded(ip)
        if embedded is None:
            return ip not in _GLOBAL_6 or any(ip in network for network in _NOT_PUBLIC_6)
        ip = embedded
    return any(ip in network for network in _NOT_PUBLIC_4)


# Each answer of an upstream comes from an address, of which there are few.
_remembered = lru_cache(1024)(_is_private)


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address to which a translator or a tunnel would send packets for `ip`."""
    for network, below in _EMBEDDING:
        if ip in network:
            return IPv4Address(int(ip) >> below & 0xFFFFFFFF)
    return None
