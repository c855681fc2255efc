"""The client that a task works for: its verified names, or else the network that a request came from."""

from collections.abc import Sequence
from contextvars import ContextVar

# Work that no client has asked for.
NO_CLIENT = ""

# Tasks inherit it: work that a request has started counts for the request's client. Names, or an address.
_client: ContextVar[tuple[str, ...] | str] = ContextVar("client", default=NO_CLIENT)

# Groups of an IPv6 address that name a network: any host has as many addresses in its /64 as it wants.
NETWORK_GROUPS = 4


def set_client(address: str | None, names: Sequence[str] = ()) -> None:
    """Set the client of the running task, and of tasks that it starts: by its names, if it has any."""
    _client.set(tuple(names) or address or NO_CLIENT)


def current_client() -> str:
    """Return the client that shares are counted by: names, an IPv4 address, or the /64 of an IPv6 address.

    Names take precedence over the address: one client may come from many addresses, and many clients from
    one. Names have a kind in front (`user:`), so that they are never taken for an address.
    """
    client = _client.get()
    if isinstance(client, tuple):
        return " ".join(client)
    return network_of(client)


def network_of(address: str) -> str:
    """Return an IPv4 address as it is, and the /64 of an IPv6 address."""
    return _first_groups(address) if ":" in address else address


def _first_groups(address: str) -> str:
    """Return the first groups of an IPv6 address as `inet_ntop` writes it; an IPv4-mapped one as IPv4."""
    if address.startswith("::ffff:") and "." in address:
        return address.removeprefix("::ffff:")
    front, gap, back = address.partition("%")[0].partition("::")
    groups, rest = front.split(":") if front else [], back.split(":") if back else []
    if gap:
        groups += ["0"] * (8 - len(groups) - len(rest)) + rest
    return ":".join(groups[:NETWORK_GROUPS])
