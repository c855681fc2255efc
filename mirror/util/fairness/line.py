"""A line: a bandwidth that several transfers share, by clients and not by connections.

Before each slice a transfer asks for bytes. While the line has some, all are granted. Once transfers wait,
clients have the next slice in turn, and the transfers of one client in turn: a client with forty pulls gets
as much as a client with one. A client that is slower than its share does not wait here, and leaves the rest
to the others.

Workers that share a line split its rate by the clients that are active in each. `Split` says how: a worker
with three of four clients has three quarters of the rate.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from mirror.util.fairness.fair_queue import FairQueue
from mirror.util.fairness.token_bucket import TokenBucket

# Bytes granted at a time, at the least and at the most: a tenth of a second of a slow line, and of a fast one
# what is sent to one client before the other clients' turn (mirror/web/sendfile.py).
LEAST_SLICE, MOST_SLICE = 4 * 1024, 2 * 1024 * 1024
SLICE_SECONDS = 0.1

# Seconds of the rate that an idle line saves up.
BURST_SECONDS = 0.25

# A client is active for this time, in seconds, after it has asked.
ACTIVE_SECONDS = 1.0

# Time between two looks at the shares of workers, in seconds.
SPLIT_SECONDS = 0.1


class Split(Protocol):
    """The share of this process in a line that several processes have."""

    def share(self, active: int) -> float:
        """Return the share, above 0 and up to 1, of a process with this many active clients."""
        ...


class Alone:
    """The share of a process that has the line for itself."""

    def share(self, active: int) -> float:
        """Return all of it."""
        return 1.0


class SliceRequest:
    """A transfer that waits for bytes."""

    def __init__(self, client: str, size: int) -> None:
        self.client = client
        self.size = size
        self.granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Line:
    """One line of `rate` bytes per second, in one process."""

    def __init__(
        self, rate: float, split: Split | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._split = split or Alone()
        self._clock = clock
        self._bucket = TokenBucket(rate, rate * BURST_SECONDS, clock=clock)
        self.slice = int(min(max(rate * SLICE_SECONDS, LEAST_SLICE), MOST_SLICE))
        self._active: dict[str, float] = {}  # when each client last asked, oldest first
        self._looked = -SPLIT_SECONDS
        self._waiting: FairQueue[SliceRequest] = FairQueue()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Return whether nothing here must be remembered."""
        return not self._waiting and self._bucket.tokens >= self._bucket.burst

    async def take(self, client: str, wanted: int) -> int:
        """Wait for the client's turn; return how many of the wanted bytes it may send, at least one."""
        size = min(wanted, self.slice)
        self._look(client)
        if not self._waiting and not self._bucket.wait(size):
            self._bucket.take(size)
            return size
        demand = SliceRequest(client, size)
        self._waiting.push(client, demand)
        self.grant()
        try:
            return await demand.granted
        finally:
            self._waiting.remove(client, demand)

    @property
    def in_debt(self) -> bool:
        """Return whether the next bytes have to wait."""
        return bool(self._waiting) or self._bucket.tokens <= 0

    def charge(self, size: int) -> None:
        """Take bytes that are sent at once, however many: the next ones wait for longer."""
        self._bucket.take(size)

    def grant(self) -> None:
        """Grant what the line has now, to clients in turn, and look again when it has more."""
        self._look(None)
        while self._waiting:
            size = self._waiting.peek().size
            if self._bucket.wait(size):
                break
            demand = self._waiting.pop()
            if not demand.granted.done():  # its client is still there
                self._bucket.take(size)
                demand.granted.set_result(size)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._waiting and self._timer is None:
            seconds = self._bucket.wait(self._waiting.peek().size)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.grant()

    def _look(self, client: str | None) -> None:
        """Note who is active, and set the rate by the share of this process."""
        now = self._clock()
        if client is not None:
            self._active.pop(client, None)
            self._active[client] = now
        if now - self._looked < SPLIT_SECONDS:
            return
        self._looked = now
        while self._active and now - next(iter(self._active.values())) > ACTIVE_SECONDS:
            del self._active[next(iter(self._active))]
        self._bucket.rate = self._rate * self._split.share(len(self._active))
