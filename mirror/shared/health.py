"""Health of one engine of the shared tier: whether it is asked at all, and what operators are told."""

import time
from collections.abc import Callable

from mirror.util.log import get_logger

log = get_logger(__name__)

# The first and the longest time, in seconds, for which an engine that failed is not asked.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0


class EngineHealth:
    """A circuit breaker with a reason. `engine`: what the log calls it."""

    def __init__(self, engine: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine = engine
        self.reason: str | None = None  # why it is not used, or was not the last time
        self._clock = clock
        self._pause = FIRST_PAUSE
        self._until = 0.0

    @property
    def usable(self) -> bool:
        """Return whether the engine is to be asked; after a pause one request tries again."""
        return self._clock() >= self._until

    def record_failure(self, reason: str, seconds: float | None = None) -> None:
        """Record that the engine failed: it is not asked for a while, or for `seconds`."""
        now = self._clock()
        if self.reason is None:
            log.warning("shared tier fails, this mirror goes on alone", engine=self.engine, reason=reason)
        self.reason = reason
        if seconds is not None:
            self._until = now + seconds
        elif now >= self._until:  # one that was sent before the pause does not prolong it
            self._until = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def record_success(self) -> None:
        """Record an answer."""
        if self.reason is not None:
            log.info("shared tier answers again", engine=self.engine)
        self.reason, self._pause, self._until = None, FIRST_PAUSE, 0.0
