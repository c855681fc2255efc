"""A limit on how often the same thing is logged."""

import time
from collections.abc import Callable


class Throttle:
    """Lets one event in `seconds` pass, and counts the others."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = 0.0
        self._skipped = 0

    def count(self) -> int:
        """Return the number of events since the last one that passed, this one included; 0 to stay silent."""
        self._skipped += 1
        now = self._clock()
        if now < self._next:
            return 0
        self._next = now + self._seconds
        passed, self._skipped = self._skipped, 0
        return passed
