"""Turns of the event loop: a bounded amount of work in each, and what is beyond waits, in order.

The loop runs all that is ready before it looks at connections again. With five hundred bodies to send, each
client of a small file would wait for five hundred pieces.
"""

import asyncio
from collections import deque
from collections.abc import Callable

# Turns that are short once a client has connected, until its first request is read, as parts of a long one.
SHORT_TURNS, SHORT_PART = 4, 8


class LoopTurns:
    """Work of the event loop, in units of the caller: about `most` in one turn of the loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = most  # of this turn
        self._short_turns = 0
        self._used = 0
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()
        self._scheduled = False

    def __len__(self) -> int:
        """Return the number of pieces that wait."""
        return len(self._waiting)

    def take(self, work: int) -> bool:
        """Take room for a piece of work in this turn; False if there is none, or others wait for it."""
        if self._waiting or self._used >= self._limit:
            return False
        self._used += work
        self._schedule()
        return True

    def shorten(self) -> None:
        """Do less in the next turns: a client has connected, or requests wait to begin."""
        self._short_turns = SHORT_TURNS

    def give_back(self, work: int) -> None:
        """Give back room that a piece did not need."""
        self._used -= work

    def wait(self, work: int, call: Callable[[], object]) -> None:
        """Call `call` in a later turn, with room for a piece of work, behind all that wait."""
        self._waiting.append((work, call))
        self._schedule()

    async def turn(self, work: int) -> None:
        """Wait for a turn with room for a piece of work."""
        if self.take(work):
            return
        granted = asyncio.get_running_loop().create_future()

        def grant() -> None:
            if not granted.done():  # not cancelled
                granted.set_result(None)

        self.wait(work, grant)
        await granted

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        """Begin a turn: give its room to what waits, in order."""
        self._scheduled = False
        self._used = 0
        self._limit = self._most // SHORT_PART if self._short_turns else self._most
        self._short_turns = max(0, self._short_turns - 1)
        while self._waiting and self._used < self._limit:
            work, call = self._waiting.popleft()
            self._used += work
            call()
        if self._used > 0 or self._waiting:
            self._schedule()
