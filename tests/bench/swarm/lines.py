"""Network lines that flows share equally."""

import asyncio
import heapq
from itertools import count


class LineCut(Exception):
    """The machine at one end of the line is dead."""


class Line:
    """A line of `rate` bytes a second. All flows on it have the same share at any moment."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rate: float) -> None:
        self.sent = 0  # bytes, in whole flows
        self._loop = loop
        self._rate = rate
        self._flows: list[tuple[float, int, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._share = 0.0  # bytes that each flow has had that was there all the time
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._cut = False

    def begin(self, length: int) -> asyncio.Future[None]:
        """Begin a flow of `length` bytes; the future ends with it, or has LineCut."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._cut:
            future.set_exception(LineCut())
            return future
        self._advance()
        heapq.heappush(self._flows, (self._share + length, next(self._numbers), length, future))
        self._plan()
        return future

    def cut(self) -> None:
        """End all flows: their bytes since the last piece are lost."""
        self._cut = True
        if self._timer is not None:
            self._timer.cancel()
        for *_, future in self._flows:
            if not future.done():
                future.set_exception(LineCut())
        self._flows.clear()

    def _advance(self) -> None:
        now = self._loop.time()
        if self._flows:
            self._share += (now - self._since) * self._rate / len(self._flows)
        self._since = now

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._flows:
            seconds = max(0.0, self._flows[0][0] - self._share) * len(self._flows) / self._rate
            self._timer = self._loop.call_later(seconds, self._finish)

    def _finish(self) -> None:
        self._timer = None
        self._advance()
        while self._flows and self._flows[0][0] <= self._share + 1.0:
            _, _, length, future = heapq.heappop(self._flows)
            if not future.done():
                self.sent += length
                future.set_result(None)
        self._plan()


async def transfer(length: int, *lines: Line) -> None:
    """Send `length` bytes over all the lines at once: the slowest decides. Raises LineCut."""
    for ended in await asyncio.gather(*(each.begin(length) for each in lines), return_exceptions=True):
        if ended is not None:
            raise ended
