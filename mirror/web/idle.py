"""Idle connections on which something known was asked for: one look at all of them, beside the event loop.

For each event on a connection asyncio makes a list, a handle and a callback, which cost as much as answering
by heart does. So these connections are taken out of the loop's selector and into an epoll of their own, which
the loop watches as one. What comes there and is not known goes back to the loop with its connection.
"""

import asyncio
import os
import select
from typing import Protocol

# One read, in bytes: more than a head has that is known. How many connections are read in one look.
HEAD = 16 * 1024
AT_ONCE = 256


class Watched(Protocol):
    def arrived(self, data: bytes) -> None:
        """Something has come; nothing at the end of the connection, and when it broke."""
        ...


class Idle:
    """Made and used in the event loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._poll = select.epoll()
        self._here: dict[int, Watched] = {}
        loop.add_reader(self._poll.fileno(), self._look)

    def watch(self, socket: int, connection: Watched) -> None:
        """From now on; the loop must not read from the socket then."""
        self._poll.register(socket, select.EPOLLIN)
        self._here[socket] = connection

    def leave(self, socket: int) -> None:
        """Before the socket is closed, or read by others."""
        if self._here.pop(socket, None) is not None:
            self._poll.unregister(socket)

    def close(self) -> None:
        """What is watched is read by nobody any more."""
        if not self._poll.closed:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
            self._here.clear()

    def _look(self) -> None:
        for socket, _ in self._poll.poll(0, AT_ONCE):
            connection = self._here.get(socket)
            if connection is None:  # one before it in this list has made it leave
                continue
            try:
                data = os.read(socket, HEAD)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            connection.arrived(data)
