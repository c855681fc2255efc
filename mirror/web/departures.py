"""Clients that left before their request was read: in a crowd, it is not read any more.

A burst of clients that ask and leave fills the queue of connections that wait to be accepted. To parse, look
up and refuse each of them takes a millisecond, in which the clients that stay are not answered.
"""

import asyncio
import socket
from collections.abc import Callable

from mirror.util.log import get_logger
from mirror.util.throttle import Throttle

log = get_logger(__name__)

# Requests that run at a time in a crowd: more than one client makes that pulls an image. With fewer, a client
# that only ends its direction of the connection, as simple programs do, gets what can be answered at once.
CROWD = 16

# What is asked of a registry; probes are always answered.
API = b"/v2/"

# The longest beginning of a request that is searched for API.
BEGINNING = 512

# State of a connection whose other end has ended its direction (tcp_states.h), the first byte of TCP_INFO.
CLOSE_WAIT = 8

# Such requests are logged once in this many seconds.
REPEAT_SECONDS = 60.0


class Departures:
    """The clients of one process that left. `running`: the number of requests that run."""

    def __init__(self, running: Callable[[], int]) -> None:
        self._running = running
        self._throttle = Throttle(REPEAT_SECONDS)

    def is_unread(self, data: bytes, transport: asyncio.Transport) -> bool:
        """Return whether a request that has just come is not worth reading."""
        if self._running() < CROWD or API not in data[:BEGINNING] or not _has_left(transport):
            return False
        if count := self._throttle.count():
            log.info("clients left before their requests were read", requests=count, running=self._running())
        return True


def _has_left(transport: asyncio.Transport) -> bool:
    """Return whether the client has ended its direction of the connection, whatever is still to be read."""
    connection = transport.get_extra_info("socket")
    state: bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] == CLOSE_WAIT
