"""Limits of clients: whom each limit is about, and who shares its bounds.

    identities  x  networks   ->   bounds, for each client, each identity, each network, or all together

All limits that match a client apply to it. What a limit leaves out matches everybody, and is not bounded.
"""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from mirror.access.identity import Identity
from mirror.access.patterns import matches
from mirror.access.policy import Address, parse_address
from mirror.access.rules import Network
from mirror.util.fairness.client import network_of
from mirror.util.lru import LRUCache

# Room for remembered results, in bytes: some thousand clients.
KEPT_BYTES = 1024 * 1024

# Kinds of principals that tell who a client is; the first one of these that a client has is its identity. The
# others tell what it belongs to.
WHO = ("user:", "token:", "cert:", "jwt:", "san:")


class Per(StrEnum):
    """Sharers of the bounds of a limit: each client, each identity, each network, or all together."""

    CLIENT = "client"
    IDENTITY = "identity"
    NETWORK = "network"
    ALL = "all"


class Bounds(Struct, frozen=True):
    """The bounds of a limit; None for what it does not bound.

    `connections`: at a time. `requests`: per second, after a `burst`. `bandwidth`: bytes per second to
    clients. `upstream_bytes`: bytes from upstreams in a day. `blob`: bytes of the largest blob. `fills`:
    downloads from upstreams at a time.
    """

    connections: int | None = None
    requests: float | None = None
    burst: int = 1
    bandwidth: int | None = None
    upstream_bytes: int | None = None
    blob: int | None = None
    fills: int | None = None


class Limit(Struct, frozen=True):
    """One limit. `number`: its place in the configuration, from 1. `identities`: patterns of principals."""

    number: int
    name: str
    per: Per
    bounds: Bounds
    identities: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    def sharer(self, identity: Identity, parsed: Address | None) -> str | None:
        """Return who shares the bounds that a client has by this limit; None if it is not about the client.

        `parsed`: the client's address.
        """
        network = _network(parsed, self.networks)
        if self.networks and network is None:
            return None
        if self.identities and not any(matches(name, self.identities) for name in identity.names):
            return None
        if self.per is Per.ALL:
            return ""
        if self.per is Per.NETWORK and network is not None:
            return str(network)
        return who(identity) if self.per is Per.IDENTITY else network_of(identity.address)


class Shared(Struct, frozen=True):
    """A limit as it is about a client, and who shares its bounds."""

    limit: Limit
    sharer: str


class LimitTable:
    """All limits."""

    def __init__(self, limits: Sequence[Limit] = ()) -> None:
        self.limits = tuple(limits)
        self._found: LRUCache[Identity, tuple[Shared, ...]] = LRUCache(KEPT_BYTES)

    def about(self, identity: Identity) -> tuple[Shared, ...]:
        """Return the limits that apply to a client, in order."""
        found = self._found.get(identity)
        if found is None:
            parsed = parse_address(identity.address)
            pairs = ((each, each.sharer(identity, parsed)) for each in self.limits)
            found = tuple(Shared(limit, sharer) for limit, sharer in pairs if sharer is not None)
            self._found.put(identity, found, sum(map(len, identity.names)) + 64 * len(found))
        return found

    def refusing(self, address: str) -> tuple[int, ...]:
        """Return the numbers of limits that may refuse content to clients at an address.

        The identity of the client is not looked at. What a limit refuses to one client is remembered for no
        other.
        """
        parsed = parse_address(address)
        return tuple(
            each.number
            for each in self.limits
            if each.bounds.blob is not None and (not each.networks or _network(parsed, each.networks))
        )


def who(identity: Identity) -> str:
    """Return the principal that tells who a client is; of one that is nobody, its address or network."""
    found = (each for kind in WHO for each in identity.names if each.startswith(kind))
    return next(found, None) or next(iter(identity.names), None) or network_of(identity.address)


def _network(address: Address | None, networks: Sequence[Network]) -> Network | None:
    """Return the first of the networks that has the address."""
    if address is None:
        return None
    return next((each for each in networks if each.version == address.version and address in each), None)
