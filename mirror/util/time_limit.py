"""A time limit that stands still while the work has not begun."""

import asyncio
from collections.abc import Callable
from types import TracebackType


class TimeLimit:
    """A limit on the wait for an answer; TimeoutError at its end. `suspend` stops it, `resume` restarts it.

    Waiting in the mirror's own queue is no silence of an upstream. After the queue the limit begins again.
    Without `seconds`, or outside the `async with`, nothing is limited, and all methods may be called.
    """

    def __init__(
        self, seconds: float | None = None, early: tuple[float, Callable[[], bool]] | None = None
    ) -> None:
        """`early`: seconds, and a function that is called then and returns whether the limit ends at once."""
        self._seconds = seconds
        self._early = early
        self._timer: asyncio.TimerHandle | None = None
        self._timeout: asyncio.Timeout | None = None
        self._running = False
        self._ended_at = 0.0

    @property
    def expired(self) -> bool:
        """Return whether the limit, and not a client that left, has ended the wait."""
        return self._timeout is not None and self._timeout.expired()

    @property
    def deadline(self) -> float:
        """Time, by the loop's clock, up to which the answer was waited for at most."""
        return self._ended_at

    async def __aenter__(self) -> "TimeLimit":
        self._timeout = asyncio.timeout(None)
        self._running = True
        await self._timeout.__aenter__()
        self.resume()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = False
        self._cancel_timer()
        if self._timeout is not None:
            await self._timeout.__aexit__(kind, error, trace)

    def suspend(self) -> None:
        """Stop the limit."""
        if self._running and self._timeout is not None and not self._timeout.expired():
            self._cancel_timer()
            self._timeout.reschedule(None)

    def resume(self) -> None:
        """Start the limit, from its beginning."""
        if not self._running or self._timeout is None or self._timeout.expired() or self._seconds is None:
            return
        loop = asyncio.get_running_loop()
        self._ended_at = loop.time() + self._seconds
        self._timeout.reschedule(self._ended_at)
        self._cancel_timer()
        if self._early is not None:
            self._timer = loop.call_later(self._early[0], self._check)

    def _check(self) -> None:
        if self._early is None or not self._running or self._timeout is None or self._timeout.expired():
            return
        if self._early[1]():
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
