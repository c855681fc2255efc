"""The client that a task works for: the network that a request came from."""

from contextvars import ContextVar

# Work that no client has asked for.
NO_CLIENT = ""

# Tasks inherit it: work that a request has started counts for the request's client.
_client: ContextVar[str] = ContextVar("client", default=NO_CLIENT)

# Groups of an IPv6 address that name a network: any host has as many addresses in its /64 as it wants.
NETWORK_GROUPS = 4


def set_client(address: str | None) -> None:
    """Set the client's address for the running task, and for tasks that it starts."""
    _client.set(address or NO_CLIENT)


def current_client() -> str:
    """Return the client that shares are counted by: an IPv4 address, or the /64 of an IPv6 address."""
    address = _client.get()
    return _network(address) if ":" in address else address


def _network(address: str) -> str:
    """Return the first groups of an IPv6 address as `inet_ntop` writes it; an IPv4-mapped one as IPv4."""
    if address.startswith("::ffff:") and "." in address:
        return address.removeprefix("::ffff:")
    front, gap, back = address.partition("%")[0].partition("::")
    groups, rest = front.split(":") if front else [], back.split(":") if back else []
    if gap:
        groups += ["0"] * (8 - len(groups) - len(rest)) + rest
    return ":".join(groups[:NETWORK_GROUPS])
