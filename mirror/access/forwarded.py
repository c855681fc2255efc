"""The address of a client behind proxies, by X-Forwarded-For.

Each proxy appends the address from which a request came to it. Only what a trusted proxy appended is worth
anything: a client can begin the header with what it likes. So the header is read from its end, as long as the
addresses are those of trusted proxies; the first other one is the client.
"""

import re
from collections.abc import Sequence

from mirror.access.policy import Address, parse_address
from mirror.access.rules import Network

HEADER = "X-Forwarded-For"

# Most addresses that are read: a chain of proxies has two or three.
MOST_HOPS = 32

# Longest text of an address, in characters, with brackets, a scope and a port; a longer one is none.
HOP_LENGTH = 80

# An address with a port, as some proxies write it.
WITH_PORT = re.compile(r"\[?([0-9a-fA-F:.%]+?)\]?(?::[0-9]{1,5})?")


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client's address: `peer`, or what trusted proxies say. `forwarded`: the header's values."""
    if not trusted or not is_among(parse_address(peer), trusted):
        return peer
    client = peer
    for hop in reversed([each.strip() for value in forwarded for each in value.split(",")][-MOST_HOPS:]):
        address = _parse_hop(hop)
        if address is None:
            return client
        client = str(address)
        if not is_among(address, trusted):
            return client
    return client


def is_among(address: Address | None, networks: Sequence[Network]) -> bool:
    """Return whether the address is in one of the networks."""
    return address is not None and any(
        address.version == network.version and address in network for network in networks
    )


def _parse_hop(text: str) -> Address | None:
    if len(text) > HOP_LENGTH:
        return None
    if text.count(":") > 1 and not text.startswith("["):  # IPv6, for which a port needs brackets
        return parse_address(text)
    found = WITH_PORT.fullmatch(text)
    return None if found is None else parse_address(found[1])
