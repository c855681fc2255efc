"""The sockets that clients connect to: bound here, or passed by a service manager (sd_listen_fds(3))."""

import errno
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from mirror.config.loader import environment

# How many connections may wait to be accepted; the kernel lowers it to net.core.somaxconn.
BACKLOG = 1024

# The most processes on one address: twice as many as there may be workers, for those that retire.
MOST = 128
COUNTS = struct.Struct(f"={MOST}I")
ABSENT = 2**32 - 1

# How long who has more lets others go first, in seconds: time enough to be woken.
DEFER_SECONDS = 0.001

# The first descriptor that a service manager passes.
FIRST = 3


class ConnectionCounts:
    """How many connections each of several processes has, in memory that they share; made before the fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, COUNTS.size)
        for number in range(MOST):
            self.leave(number)

    def set(self, number: int, connections: int) -> None:
        """The process of this number accepts, and has so many. Beyond MOST nobody is counted."""
        if number < MOST:
            struct.pack_into("=I", self._memory, number * 4, connections)

    def leave(self, number: int) -> None:
        """It does not accept any more."""
        self.set(number, ABSENT)

    def fewest(self) -> int:
        """Of those who accept."""
        counts: tuple[int, ...] = COUNTS.unpack_from(self._memory)
        return min(counts)


class AcceptBalancer:
    """One process's part of what comes: who has more connections than another lets that one go first.

    Of a burst of 32 connections each of two processes has 14 to 18 then; without this, now and then one had
    them all. It lets others go first for a moment only: they may be busy, and nobody waits for them.
    """

    def __init__(
        self, counts: ConnectionCounts, number: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._counts = counts
        self._number = number
        self._clock = clock
        self._connections = 0
        self._since: float | None = None

    def set_connections(self, connections: int) -> None:
        self._connections = connections
        self._counts.set(self._number, connections)

    def leave(self) -> None:
        """Others accept alone."""
        self._counts.leave(self._number)

    def should_defer(self) -> bool:
        """Whether what waits now is left to others."""
        if self._connections <= self._counts.fewest():
            self._since = None
            return False
        now = self._clock()
        if self._since is None:
            self._since = now
        if now - self._since < DEFER_SECONDS:
            return True
        self._since = None
        return False


class ListeningSocket(socket.socket):
    """A listening socket that may be shared with other processes.

    asyncio accepts, at each wake-up, as many connections as the backlog it was told: with 1, a burst can be
    shared. But it tells the kernel the same number, for which this is in the way.
    """

    balancer: AcceptBalancer | None = None

    def listen(self, backlog: int = BACKLOG, /) -> None:
        super().listen(BACKLOG)

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises BlockingIOError, as if there were nothing, when another process is to have it."""
        if self.balancer is not None and self.balancer.should_defer():
            raise BlockingIOError
        return super().accept()


def inherited_sockets() -> list[ListeningSocket]:
    """What a service manager has bound for us; empty when none has. OSError when that is of no use."""
    env = environment()
    if env.get("LISTEN_PID") != str(os.getpid()):
        return []
    sockets = [ListeningSocket(fileno=FIRST + number) for number in range(int(env.get("LISTEN_FDS", "0")))]
    for each in sockets:
        if each.family not in (socket.AF_INET, socket.AF_INET6) or each.type != socket.SOCK_STREAM:
            raise OSError(f"the service manager passed a socket that is not TCP: {each.getsockname()}")
        os.set_inheritable(each.fileno(), False)
        each.setblocking(False)
    return sockets


def bind_all(addresses: Sequence[str]) -> list[ListeningSocket]:
    """A socket, or several where a name has several addresses, for each HOST:PORT. OSError names it."""
    sockets: list[ListeningSocket] = []
    try:
        for address in addresses:
            sockets += _bind(address)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def format_address(each: socket.socket) -> str:
    """HOST:PORT of a socket."""
    host, port = each.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(address: str) -> list[ListeningSocket]:
    host, _, port = address.rpartition(":")
    sockets: list[ListeningSocket] = []
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for family, where in dict.fromkeys((family, where) for family, _, _, _, where in found):
            try:
                sockets.append(_listen(family, where))
            except OSError as error:
                # A name may have an IPv6 address on a machine that has no IPv6.
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) or (
                    where == found[-1][4] and not sockets
                ):
                    raise
    except OSError as error:
        for each in sockets:
            each.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror or error}") from error
    return sockets


def _listen(family: int, where: tuple[Any, ...]) -> ListeningSocket:
    each = ListeningSocket(family, socket.SOCK_STREAM)
    try:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        each.bind(where)
        each.listen()
        each.setblocking(False)
    except BaseException:
        each.close()
        raise
    return each
