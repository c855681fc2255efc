"""What was found out a moment ago, so that it is not found out again at once."""

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """Values by key, each for `seconds`; of more than `most` the oldest are forgotten."""

    def __init__(self, seconds: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._known: dict[K, tuple[float, V]] = {}

    def get(self, key: K) -> V | None:
        """None when it was not found out lately."""
        known = self._known.get(key)
        return None if known is None or self._clock() >= known[0] else known[1]

    def put(self, key: K, value: V) -> None:
        self._known.pop(key, None)  # dictionaries keep the order of insertion, which is that of time then
        while len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[key] = (self._clock() + self._seconds, value)
