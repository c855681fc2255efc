"""Rates of running transfers, from the bytes that they have moved whenever somebody looks."""

import time
from collections.abc import Callable, Collection

from msgspec import Struct

# Two looks within this many seconds have the same rates: several people may look at once.
LEAST_SECONDS = 0.5


class _Look(Struct, frozen=True):
    """The last look at a transfer: when, and how far it was."""

    moment: float
    done: int
    rate: float = 0.0


class Rates:
    """Rates by the name of a transfer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: dict[str, _Look] = {}

    def rate(self, name: str, done: int) -> float:
        """Return the rate since the last look, in bytes a second; 0 at the first one."""
        now = self._clock()
        last = self._looks.get(name)
        if last is None:
            self._looks[name] = _Look(now, done)
            return 0.0
        seconds = now - last.moment
        if seconds < LEAST_SECONDS:
            return last.rate
        rate = max(0, done - last.done) / seconds
        self._looks[name] = _Look(now, done, rate)
        return rate

    def keep(self, names: Collection[str]) -> None:
        """Forget all transfers but these."""
        for name in [each for each in self._looks if each not in names]:
            del self._looks[name]
