"""Turns of look-ups: how many upstreams are asked at a time depends on how busy this process is.

A look-up costs a millisecond or so of processor time, and each turn of the event loop runs a part of all that
are ready. With a hundred of them, a client that wants a file from the disk waits a hundred times as long.

1. While the process is not saturated, look-ups have as many turns as they want: waiting for a far registry
   costs nothing. While it is, the window is halved at each measurement, down to LEAST; afterwards it grows
   by half, as long as look-ups wait.
2. Beyond the window look-ups wait, and clients have the next turns in turn: one with a thousand look-ups does
   not delay one with a single look-up. What is answered from the cache has no look-up, and never waits here.
3. A turn lasts TURN_SECONDS at most, then the look-up goes on without: it waits for its upstream, and not for
   this process. So upstreams that are slow take no turns from others.
4. What waits is bounded, in number and time: then the look-up is refused, that of the client with the most.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar

from mirror.util.callbacks import never
from mirror.util.fairness.client import current_client
from mirror.util.fairness.fair_queue import FairQueue
from mirror.util.fairness.measured import run_measured

V = TypeVar("V")

# Look-ups at a time, at the least and at the most. With four, a cold blob beside a flood of names took twice
# as long as alone, with eight three times; with two the process was idle now and then, and the window jumped.
LEAST, MOST = 4, 1024

# The longest turn, in seconds: several times the processor time of LEAST look-ups, and less than the way to
# a far registry. A saturated process begins 80 look-ups a second at the least.
TURN_SECONDS = 0.05

# The longest wait for a turn, in seconds: clients wait for an answer for 30 s or so.
WAIT_SECONDS = 10.0

# Look-ups that wait, all clients together.
MOST_WAITING = 512

# Time between two looks at the load, in seconds.
LOOK_SECONDS = 0.2


class Turn:
    """A turn of a look-up, or the wait for one."""

    def __init__(self, client: str, refuse: Callable[[], Exception]) -> None:
        self.client = client
        self.refuse = refuse
        # True for a turn, False for none.
        self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.over = False


# The turn of the look-up that the running task is a part of.
_turn: ContextVar[Turn | None] = ContextVar("turn", default=None)


class LookupTurns:
    """The turns of one process. `saturated`: whether the process can hardly do more."""

    def __init__(
        self, saturated: Callable[[], bool] = never, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.saturated = saturated
        self.turn_seconds, self.wait_seconds = TURN_SECONDS, WAIT_SECONDS
        self.window = MOST
        self._clock = clock
        self._looked = 0.0
        self._holders: dict[Turn, float] = {}  # when the turn began, oldest first
        self._waiting: FairQueue[Turn] = FairQueue()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Number of look-ups that wait for a turn."""
        return len(self._waiting)

    async def run(self, work: Callable[[], Awaitable[V]], refuse: Callable[[], Exception]) -> V:
        """Return the result of a look-up, which waits for its turn. Raises what `refuse` gives without one.

        A look-up that is a part of another one shares that one's turn.
        """
        outer = _turn.get()
        if outer is not None and not outer.over:
            return await work()
        turn = Turn(current_client(), refuse)
        if not self._take(turn):
            await self._wait(turn)
        reset = _turn.set(turn)
        try:
            return await run_measured(work)
        finally:
            _turn.reset(reset)
            self._end(turn)

    def _take(self, turn: Turn) -> bool:
        """Give the turn at once if none waits before it."""
        now = self._look()
        if self._waiting or len(self._holders) >= self.window:
            return False
        self._holders[turn] = now
        return True

    async def _wait(self, turn: Turn) -> None:
        if len(self._waiting) >= MOST_WAITING:
            last = self._waiting.take_for(turn.client)
            if last is None:
                raise turn.refuse()
            _settle(last, granted=False)
        self._waiting.push(turn.client, turn)
        self._grant()
        granted = False
        try:
            async with asyncio.timeout(self.wait_seconds):
                granted = await turn.granted
        except TimeoutError:
            pass
        finally:
            if not granted:
                self._end(turn)
        if not granted:
            raise turn.refuse()

    def _end(self, turn: Turn) -> None:
        """End a turn, or the wait for it; the next ones begin."""
        turn.over = True
        self._holders.pop(turn, None)
        self._waiting.remove(turn.client, turn)
        if self._waiting:
            self._grant()

    def _look(self) -> float:
        """Set the window by the load; return the time."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            if self.saturated():
                self.window = max(LEAST, min(self.window, len(self._holders)) // 2)
            else:
                self.window = min(MOST, self.window + self.window // 2) if self._waiting else MOST
            self._forget_long(now)
        return now

    def _forget_long(self, now: float) -> None:
        """End turns that last too long; the look-ups go on."""
        while self._holders and now - next(iter(self._holders.values())) >= self.turn_seconds:
            del self._holders[next(iter(self._holders))]

    def _grant(self) -> None:
        now = self._look()
        self._forget_long(now)
        while self._waiting and len(self._holders) < self.window:
            turn = self._waiting.pop()
            if _settle(turn, granted=True):
                self._holders[turn] = now
        if self._waiting and self._timer is None:
            oldest = next(iter(self._holders.values()))
            seconds = max(0.0, oldest + self.turn_seconds - now)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._on_time)

    def _on_time(self) -> None:
        """Begin the turns that wait while no turn ends."""
        self._timer = None
        if self._waiting:
            self._grant()


def _settle(turn: Turn, *, granted: bool) -> bool:
    """Tell a look-up that waits whether it has a turn; return False if it waits no more."""
    if turn.granted.done():
        return False
    turn.granted.set_result(granted)
    return True
