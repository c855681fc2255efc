"""Clients that left before their request was read: in a crowd, it is not read any more.

A burst of clients that ask and leave fills the queue of connections that wait to be accepted. To parse, look
up and refuse each of them takes a millisecond, in which the clients that stay are not answered.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from mirror.util.log import get_logger
from mirror.util.throttle import Throttle

log = get_logger(__name__)

# Connections that make a crowd if they come within CROWD_SECONDS: more than clients make that pull images.
# With fewer, a client that only ends its direction of the connection, as simple programs do, gets what can be
# answered at once.
CROWD, CROWD_SECONDS = 64, 0.5

# What is asked of a registry; probes are always answered.
API = b"/v2/"

# The longest beginning of a request that is searched for API.
BEGINNING = 512

# State of a connection whose other end has ended its direction (tcp_states.h), the first byte of TCP_INFO.
CLOSE_WAIT = 8

# Such requests are logged once in this many seconds.
REPEAT_SECONDS = 60.0


class LeavingConnection(Protocol):
    """A socket, or what asyncio shows of it."""

    def getsockopt(self, level: int, option: int, buflen: int, /) -> bytes: ...


class Departures:
    """The connections that come to one process, and those whose clients have left again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = 0.0
        self._came = self._came_before = 0  # in this CROWD_SECONDS, and in those before
        self._throttle = Throttle(REPEAT_SECONDS)

    def note_connection(self) -> None:
        """Count a new connection."""
        self._turn_over()
        self._came += 1

    def is_unread(self, data: bytes, transport: asyncio.Transport) -> bool:
        """Return whether a request that has just come is not worth reading."""
        if max(self._came, self._came_before) < CROWD or not self._crowded() or API not in data[:BEGINNING]:
            return False
        return _has_left(transport.get_extra_info("socket")) and self._note_departure()

    def is_departed(self, connection: socket.socket) -> bool:
        """Return whether a connection that has just been accepted is not worth keeping. It must not block."""
        if max(self._came, self._came_before) < CROWD or not self._crowded() or not _has_left(connection):
            return False
        connection.setblocking(False)
        with suppress(OSError):  # nothing was sent, or it was reset
            if API in connection.recv(BEGINNING, socket.MSG_PEEK):
                self._came += 1
                return self._note_departure()
        return False

    def _crowded(self) -> bool:
        self._turn_over()
        return max(self._came, self._came_before) >= CROWD

    def _note_departure(self) -> bool:
        if count := self._throttle.count():
            log.info("clients left before their requests were read", requests=count)
        return True

    def _turn_over(self) -> None:
        """Begin the next CROWD_SECONDS, if those that were counted are over."""
        now = self._clock()
        if (passed := now - self._since) >= CROWD_SECONDS:
            self._came_before = self._came if passed < 2 * CROWD_SECONDS else 0
            self._came, self._since = 0, now


def _has_left(connection: LeavingConnection) -> bool:
    """Return whether the client has ended its direction of the connection, whatever is still to be read."""
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] == CLOSE_WAIT
