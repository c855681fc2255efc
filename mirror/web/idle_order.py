"""The order of connections by how long they have been idle."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Protocol

# Connections that are looked at, at most, before none counts as idle: a bound on the work of one call.
LOOKS = 256


class Connection(Protocol):
    """A client's connection, as this module needs it."""

    @property
    def connected(self) -> bool: ...

    def idle_since(self) -> float | None: ...

    def drop(self) -> None: ...


class IdleOrder:
    """A heap of connections by the time since which they were idle when last looked at.

    Activity does not touch the heap, so that a hit costs nothing here. `close_longest` corrects what it finds
    outdated at the top; each correction is paid for by some activity of that connection.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Connection]] = []
        self._numbers = count()
        self._purge_at = 2 * LOOKS

    def add(self, connection: Connection) -> None:
        """Add a connection. Closed ones leave when the heap has doubled."""
        if len(self._heap) >= self._purge_at:
            self._heap = [each for each in self._heap if each[2].connected]
            heapq.heapify(self._heap)
            self._purge_at = max(2 * LOOKS, 2 * len(self._heap))
        heapq.heappush(self._heap, (self._clock(), next(self._numbers), connection))

    def close_longest(self) -> bool:
        """Drop the connection idle longest; return whether there was one."""
        for _ in range(LOOKS):
            if not self._heap:
                return False
            since, number, connection = self._heap[0]
            if not connection.connected:
                heapq.heappop(self._heap)
                continue
            idle_since = connection.idle_since()
            if idle_since is not None and idle_since <= since:
                heapq.heappop(self._heap)
                connection.drop()
                return True
            seen = self._clock() if idle_since is None else idle_since
            heapq.heapreplace(self._heap, (seen, number, connection))
        return False
