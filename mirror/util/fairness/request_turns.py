"""Turns of requests that begin: a bounded number in each turn of the event loop.

A request that is not known costs a third of a millisecond before its first byte. When five hundred come at
once, each other client would wait for all of them. So in one turn of the loop a few begin, and what asks for
little goes first: before those that ask for a blob, of which some begin in each turn nevertheless. Within
both kinds clients have the next turns in turn.
"""

import asyncio
import time
from collections.abc import Callable

from mirror.util.callbacks import ignore
from mirror.util.fairness.fair_queue import FairQueue

# A turn that no request waits for has no end that is seen. It is over after this time, in seconds, which
# is that of a turn in which as many begin as may.
TURN_SECONDS = 0.003

Begin = Callable[[], object]


class RequestTurns:
    """The beginnings of one event loop: `most` in a turn, of which those for blobs have `least` at least."""

    def __init__(self, most: int, least: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.least = least
        self._clock = clock
        self._begun = 0
        self._over = 0.0  # by the clock, when what began counts no more
        self._small: FairQueue[Begin] = FairQueue()
        self._blobs: FairQueue[Begin] = FairQueue()
        self._scheduled = False
        self.on_waiting: Callable[[], object] = ignore  # called in each turn in which requests wait

    def __len__(self) -> int:
        """Return the number of requests that wait."""
        return len(self._small) + len(self._blobs)

    def take(self, *, blob: bool) -> bool:
        """Begin a request now; False if it has to wait: too many have begun, or others wait before it."""
        if self._small or (blob and self._blobs):
            return False
        now = self._clock()
        if now >= self._over:
            self._begun, self._over = 0, now + TURN_SECONDS
        if self._begun >= self.most:
            return False
        self._begun += 1
        return True

    def wait(self, client: str, begin: Begin, *, blob: bool) -> None:
        """Call `begin` in a later turn."""
        (self._blobs if blob else self._small).push(client, begin)
        self._schedule()

    def _schedule(self) -> None:
        self.on_waiting()
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._scheduled = False
        self._begun, self._over = 0, self._clock() + TURN_SECONDS
        self._begin(self._small, self.most - (self.least if self._blobs else 0))
        self._begin(self._blobs, self.most)
        if len(self):
            self._schedule()

    def _begin(self, queue: FairQueue[Begin], most: int) -> None:
        while queue and self._begun < most:
            self._begun += 1
            queue.pop()()
