"""Health of one engine of the shared tier, and how long a request waits for all of them together.

An engine that failed is asked again in the background alone (`SharedTier`): no request waits for it until it
has answered there. Engines that answer, but late, cost a request no more than its `Waits`.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mirror.util.log import get_logger

log = get_logger(__name__)

# The first and the longest time, in seconds, after which an engine that failed is asked again.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0


class EngineHealth:
    """A circuit breaker with a reason. `engine`: what the log calls it."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.reason: str | None = None  # why it is not used
        self._pause = FIRST_PAUSE

    @property
    def usable(self) -> bool:
        """Return whether the engine is to be asked."""
        return self.reason is None

    def record_failure(self, reason: str) -> None:
        """Record that the engine failed: no request asks it until it has answered."""
        if self.reason is None:
            log.warning("shared tier fails, this mirror goes on alone", engine=self.engine, reason=reason)
        self.reason = reason

    def next_pause(self) -> float:
        """Return after how many seconds to ask it again: longer each time."""
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause

    def record_success(self) -> None:
        """Record an answer."""
        if self.reason is not None:
            log.info("shared tier answers again", engine=self.engine)
        self.reason, self._pause = None, FIRST_PAUSE


class Wait:
    """Time, in seconds, that one request has left for questions to one engine; parallel ones count once."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._left = seconds
        self._clock = clock
        self._asked = 0
        self._since = 0.0

    @property
    def left(self) -> float:
        """Return how long the next question may take."""
        return self._left - (self._clock() - self._since if self._asked else 0.0)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time in the block."""
        if not self._asked:
            self._since = self._clock()
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1
            if not self._asked:
                self._left -= self._clock() - self._since


class Waits:
    """The waits of one request: `seconds` for each engine."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._waits: defaultdict[str, Wait] = defaultdict(lambda: Wait(seconds, clock))

    def of(self, engine: str) -> Wait:
        return self._waits[engine]


# The waits of the request that the running task works for; None for work that no request waits for.
_waits: ContextVar[Waits | None] = ContextVar("waits", default=None)


def current_waits() -> Waits | None:
    return _waits.get()


@contextmanager
def limited(waits: Waits) -> Iterator[None]:
    """Have the questions in the block share `waits`, or those of the block around it."""
    if _waits.get() is not None:
        yield
        return
    reset = _waits.set(waits)
    try:
        yield
    finally:
        _waits.reset(reset)


@contextmanager
def unlimited() -> Iterator[None]:
    """Have the questions in the block belong to no request."""
    reset = _waits.set(None)
    try:
        yield
    finally:
        _waits.reset(reset)
