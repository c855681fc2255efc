"""Admission of client connections: a bound on their number, and what happens at the bound."""

import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from mirror.util.fairness.client import network_of
from mirror.util.log import get_logger
from mirror.util.throttle import Throttle

log = get_logger(__name__)

# At the bound, a connection whose TLS handshake takes longer than this, in seconds, makes room for another.
HANDSHAKE_SECONDS = 1.0

# The same trouble is logged once in this many seconds.
REPEAT_SECONDS = 60.0


class ClientSocket(socket.socket):
    """An accepted connection that reports its end to `on_closed`, once.

    `peer`: address of the other end by the word of a proxy, instead of the proxy's own.
    """

    on_closed: Callable[[], None] | None = None
    peer: tuple[str, int] | None = None

    def getpeername(self) -> Any:
        return self.peer or super().getpeername()

    def close(self) -> None:
        super().close()
        report, self.on_closed = self.on_closed, None
        if report is not None:
            report()


class Admission:
    """The client connections of one process, at most `limit`.

    At the bound each new connection closes another: the one idle longest (`close_idle`, which returns whether
    there was one), else the oldest unfinished TLS handshake. If all others are busy, the new one is closed,
    at once and not after a timeout: its client has another mirror or the registry itself to try.

    `share`: connections that one address may have, None for all. At it a new connection closes the one of the
    same address that is idle longest (`close_idle_of`), or is closed.
    """

    def __init__(
        self, limit: int, clock: Callable[[], float] = time.monotonic, share: int | None = None
    ) -> None:
        self.limit = limit
        self.open = 0
        self.close_idle: Callable[[], bool] = lambda: False
        self.close_idle_of: Callable[[str], bool] = lambda _: False
        self._share = share
        self._by_address = Counter[str]()  # connections that are open, where addresses have a share
        self._clock = clock
        self._handshakes: dict[int, tuple[float, ClientSocket]] = {}  # by descriptor, oldest first
        self._throttle = Throttle(REPEAT_SECONDS)

    def admit(self, connection: ClientSocket) -> bool:
        """Count a new connection; False, without counting it, if there is no room."""
        address = "" if self._share is None else _peer_of(connection)
        if self._share is not None and self._by_address[address] >= self._share:
            if not self.close_idle_of(address):
                self._report_share(address)
                return False
        elif self.open >= self.limit and not self._make_room():
            return False
        descriptor = connection.fileno()
        self.open += 1
        if self._share is not None:
            self._by_address[address] += 1
        self._handshakes[descriptor] = (self._clock(), connection)

        def on_closed() -> None:
            self.open -= 1
            self._leave(address)
            self.established(descriptor)

        connection.on_closed = on_closed
        return True

    def _leave(self, address: str) -> None:
        if self._share is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def established(self, descriptor: int) -> None:
        """Note that a connection has finished its handshake, if it has one, or has ended."""
        self._handshakes.pop(descriptor, None)

    def report_exhausted(self) -> None:
        """Note that there was no descriptor for a connection, and free one."""
        self.close_idle()
        if count := self._throttle.count():
            log.error(
                "no free descriptor for a client, connections idle longest are closed",
                connections=self.open,
                times=count,
                to_do="raise the limit of open files: LimitNOFILE in the unit, ulimit -Hn in a shell",
            )

    def _report_share(self, address: str) -> None:
        if count := self._throttle.count():
            log.warning(
                "an address has its share of the connections and all are busy, new ones are closed",
                address=address,
                connections=self._share,
                times=count,
            )

    def _make_room(self) -> bool:
        made = self.close_idle() or self._end_oldest_handshake()
        if count := self._throttle.count():
            log.warning(
                "as many clients as are allowed, connections idle longest are closed"
                if made
                else "as many clients as are allowed and all are busy, new connections are closed",
                connections=self.open,
                times=count,
                to_do="raise server.connections, and LimitNOFILE to more than twice of it",
            )
        return made

    def _end_oldest_handshake(self) -> bool:
        for descriptor, (began, connection) in self._handshakes.items():
            if self._clock() - began < HANDSHAKE_SECONDS:
                return False
            del self._handshakes[descriptor]
            connection.shutdown(socket.SHUT_RDWR)  # its transport sees the end, and closes
            return True
        return False


def address_of(peer: object) -> str:
    """Return whose connection one is, by the address of its other end."""
    return network_of(str(peer[0])) if isinstance(peer, tuple) else ""


def _peer_of(connection: socket.socket) -> str:
    try:
        return address_of(connection.getpeername())
    except OSError:  # it has left
        return ""
