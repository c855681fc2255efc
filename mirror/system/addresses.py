"""The addresses of this machine, as other machines can reach them."""

import fcntl
import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Address

# Linux: ioctl that returns an interface's IPv4 address, netdevice(7).
SIOCGIFADDR = 0x8915

# Length of an interface name, and of the structure that the ioctl takes.
NAME_BYTES, REQUEST_BYTES = 15, 256

# A documentation address (RFC 5737): no packet is sent, the kernel only chooses the source address.
ANYWHERE = ("192.0.2.1", 9)

# Hosts that mean every address of this machine.
EVERY_ADDRESS = ("", "0.0.0.0", "[::]")  # noqa: S104  # compared, not bound


def reachable(address: str) -> str:
    """Return an address to use on this machine: loopback for one that means every address."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in EVERY_ADDRESS else address


def network_addresses() -> list[str]:
    """Return this machine's IPv4 addresses without loopback and link-local ones; the usual source first."""
    found = [_source_address(), *(_interface_address(name) for _, name in socket.if_nameindex())]
    return [each for each in dict.fromkeys(filter(None, found)) if _is_reachable(IPv4Address(each))]


def _is_reachable(address: IPv4Address) -> bool:
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _source_address() -> str | None:
    """Return the address from which this machine sends to others; None if there is no route."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(ANYWHERE)
        return str(probe.getsockname()[0])
    return None


def _interface_address(name: str) -> str | None:
    request = struct.pack(f"{REQUEST_BYTES}s", name.encode()[:NAME_BYTES])
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return socket.inet_ntoa(fcntl.ioctl(probe, SIOCGIFADDR, request)[20:24])
    return None
