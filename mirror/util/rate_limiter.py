"""A limit of bytes per second for background work."""

import time
from collections.abc import Callable


class RateLimiter:
    """A pacer of work in bytes. `rate` is in bytes per second; 0 means no limit."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._due = clock()

    def pause(self, size: int) -> float:
        """Return the seconds to pause after `size` bytes.

        Unused time is saved up for one second only, so that slow work is not followed by a burst.
        """
        if not self._rate:
            return 0.0
        now = self._clock()
        self._due = max(self._due, now - 1.0) + size / self._rate
        return max(0.0, self._due - now)
