"""Turns of requests that begin: a bounded number in each turn of the event loop.

A request that is not known costs a third of a millisecond before its first byte. When five hundred come at
once, each other client would wait for all of them. So in one turn of the loop a few begin, and what asks for
little goes first: before those that ask for a blob, of which some begin in each turn nevertheless. Within
both kinds clients have the next turns in turn.
"""

import asyncio
from collections.abc import Callable

from mirror.util.fairness.fair_queue import FairQueue

Begin = Callable[[], object]


class RequestTurns:
    """The beginnings of one event loop: `most` in a turn, of which those for blobs have `least` at least."""

    def __init__(self, most: int, least: int) -> None:
        self.most = most
        self.least = least
        self._begun = 0
        self._small: FairQueue[Begin] = FairQueue()
        self._blobs: FairQueue[Begin] = FairQueue()
        self._scheduled = False

    def __len__(self) -> int:
        """Return the number of requests that wait."""
        return len(self._small) + len(self._blobs)

    def take(self, *, blob: bool) -> bool:
        """Begin a request now; False if it has to wait: too many have begun, or others wait before it."""
        if self._begun >= self.most or self._small or (blob and self._blobs):
            return False
        self._begun += 1
        self._schedule()
        return True

    def wait(self, client: str, begin: Begin, *, blob: bool) -> None:
        """Call `begin` in a later turn."""
        (self._blobs if blob else self._small).push(client, begin)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._scheduled = False
        self._begun = 0
        self._begin(self._small, self.most - (self.least if self._blobs else 0))
        self._begin(self._blobs, self.most)
        if self._begun or len(self):
            self._schedule()

    def _begin(self, queue: FairQueue[Begin], most: int) -> None:
        while queue and self._begun < most:
            self._begun += 1
            queue.pop()()
