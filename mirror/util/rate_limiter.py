"""A limit of bytes per second for work that is in no hurry."""

import time
from collections.abc import Callable


class RateLimiter:
    """`rate` in bytes per second, 0 for no limit."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._due = clock()

    def pause(self, size: int) -> float:
        """For how many seconds to pause after `size` bytes. What was not used in time is not saved up."""
        if not self._rate:
            return 0.0
        now = self._clock()
        self._due = max(self._due, now - 1.0) + size / self._rate
        return max(0.0, self._due - now)
