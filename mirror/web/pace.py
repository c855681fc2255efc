"""The least pace of a client that takes what others wait for.

No eviction removes a blob that a client reads, so clients that take next to nothing could keep any number of
blobs. A client that is slower than LEAST_RATE is ended once the cache is over its quota and nothing else can
go. A client of pass-through holds a connection to the upstream: it is ended once others wait for that. With
room, and with free connections, a client may be as slow as it likes.
"""

import asyncio
from collections.abc import Callable

# Bytes per second: a tenth of a slow mobile line.
LEAST_RATE = 16 * 1024

# Interval, in seconds, over which the rate is measured: a client that unpacks while it pulls pauses for long.
PACE_SECONDS = 120.0

# Calls its argument if others wait: the cache is over its quota and nothing else can go, or all connections
# to the upstream are in use.
WhenCrowded = Callable[[Callable[[], object]], object]

TOO_SLOW = "slower than the least rate while others waited for the room or the connection"


class Pace:
    """The pace of one client during one body; `close` must be called at its end."""

    def __init__(self, sent: Callable[[], int], when_crowded: WhenCrowded, end: Callable[[], object]) -> None:
        """`sent` returns the bytes that the client has taken; `end` ends its connection."""
        self.ended = False
        self._sent = sent
        self._when_crowded = when_crowded
        self._end_connection: Callable[[], object] | None = end
        self._clock = asyncio.get_running_loop().time
        self._began: float | None = None
        self._waited = 0.0  # seconds for the client, and not for the disk or for a fill
        self._before = (0.0, sent())  # at the last look: seconds waited, and bytes
        self._timer = self._look_later()

    def begin_send(self) -> None:
        """Count the time from now on as the client's."""
        self._began = self._clock()

    def end_send(self) -> None:
        """Count the time no longer."""
        if self._began is not None:
            self._waited += self._clock() - self._began
            self._began = None

    def close(self) -> None:
        """Stop looking."""
        self._timer.cancel()
        self._end_connection = None

    def _look_later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(PACE_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = self._look_later()
        if self._began is not None:
            self.end_send()
            self.begin_send()
        (waited, taken), self._before = self._before, (self._waited, self._sent())
        seconds = self._waited - waited
        if seconds >= PACE_SECONDS / 2 and self._before[1] - taken < seconds * LEAST_RATE:
            self._when_crowded(self._end)

    def _end(self) -> None:
        if self._end_connection is not None:
            self.ended = True
            self._end_connection()
