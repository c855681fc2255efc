"""Addresses of this machine, beside what the kernel lists."""

import re
from pathlib import Path

from mirror.system import addresses
from mirror.system.addresses import network_addresses


def test_network_addresses_are_those_of_the_kernel() -> None:
    """Each is a local address of the routing table; loopback is none of them."""
    table = Path("/proc/net/fib_trie").read_text()
    local = set(re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", table))
    found = network_addresses()
    assert set(found) <= local
    assert not [each for each in found if each.startswith("127.")]
    assert bool(found) == bool([each for each in local if not each.startswith(("127.", "169.254."))])


def test_network_addresses_leave_out_interfaces_without_one() -> None:
    """A name that no interface has is no error."""
    assert addresses._interface_address("none-of-these") is None
    assert addresses._interface_address("lo") == "127.0.0.1"
