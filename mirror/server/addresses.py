"""The listening sockets of the supervisor: by configured address, or by the service manager's name."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from mirror.system.sockets import CLIENTS, OPERATIONS, ListeningSocket, bind_all, format_address
from mirror.util.log import get_logger
from mirror.util.tracebacks import reason_of

log = get_logger(__name__)

# Sockets of the pages have this in front of their address: the mirror serves without them, too.
ADMIN = "admin "

# Hosts that mean all addresses of this machine, and what they are compared as.
EVERY_HOST = {"": "*", "0.0.0.0": "*", "[::]": "*", "localhost": "127.0.0.1"}  # noqa: S104


class ListenOptions(Protocol):
    """The part of the configuration that names addresses, each as HOST:PORT."""

    @property
    def listen(self) -> Sequence[str]: ...
    @property
    def operations_listen(self) -> Sequence[str]: ...


class BoundAddresses:
    """The sockets that are bound now. `inherited`: those that were passed to this process, by name."""

    def __init__(self, inherited: Mapping[str, Sequence[ListeningSocket]]) -> None:
        self._sockets = {name: list(sockets) for name, sockets in inherited.items()}

    def bind(self, options: ListenOptions) -> None:
        """Bind what `options` name and is not bound yet. Raises OSError when an address cannot be bound."""
        new = [each for each in self._names(options) if each not in self._sockets]
        self._sockets.update({each: bind_all([each]) for each in new})

    def bind_admin(self, listen: Sequence[str]) -> None:
        """Bind the addresses of the pages that are not bound yet; log those that cannot be bound."""
        for address in [each for each in listen if ADMIN + each not in self._sockets]:
            try:
                self._sockets[ADMIN + address] = bind_all([address])
            except OSError as error:
                reason, to_do = reason_of(error), "choose another address with admin.listen"
                log.error("no pages at this address", address=address, reason=reason, to_do=to_do)

    def unbind(self, options: ListenOptions, admin: Sequence[str] = ()) -> None:
        """Close what `options` and `admin` do not name; the sockets of a service manager stay."""
        pages = [ADMIN + each for each in admin]
        kept = {CLIENTS, OPERATIONS, *options.listen, *options.operations_listen, *pages}
        for name in [each for each in self._sockets if each not in kept]:
            for each in self._sockets.pop(name):
                each.close()

    def for_clients(self, options: ListenOptions) -> list[ListeningSocket]:
        """Return the sockets for clients."""
        return self._bound((CLIENTS, *options.listen))

    def for_operations(self, options: ListenOptions) -> list[ListeningSocket]:
        """Return the sockets for operators."""
        return self._bound((OPERATIONS, *options.operations_listen))

    def for_admin(self, listen: Sequence[str]) -> list[ListeningSocket]:
        """Return the sockets for the pages."""
        return self._bound([ADMIN + each for each in listen])

    def by_name(self) -> Mapping[str, Sequence[ListeningSocket]]:
        """Return all sockets."""
        return self._sockets

    def numbers(self) -> dict[str, list[int]]:
        """Return the descriptors of all sockets, by name."""
        return {name: [each.fileno() for each in sockets] for name, sockets in self._sockets.items()}

    def close(self, kept: Sequence[ListeningSocket] = ()) -> None:
        """Close all sockets but `kept`."""
        for each in (each for sockets in self._sockets.values() for each in sockets):
            if each not in kept:
                each.close()

    def _names(self, options: ListenOptions) -> list[str]:
        listen = () if CLIENTS in self._sockets else options.listen
        operations = () if OPERATIONS in self._sockets else options.operations_listen
        return [*listen, *operations]

    def _bound(self, names: Sequence[str]) -> list[ListeningSocket]:
        return [each for name, sockets in self._sockets.items() if name in names for each in sockets]


def unused_addresses(listen: Sequence[str], inherited: Sequence[ListeningSocket]) -> list[str]:
    """Return the addresses of `listen` that no inherited socket has, which are therefore not served."""
    served = {_comparable(format_address(each)) for each in inherited}
    return [each for each in listen if inherited and _comparable(each) not in served]


def _comparable(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{EVERY_HOST.get(host, host)}:{port}"
