"""A bounded cache whose entries expire."""

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """Values by key, each kept for `seconds`. The oldest entries are dropped beyond `max_entries`.

    Expired entries are dropped when another one is put: a flood of names leaves nothing for long.
    """

    def __init__(self, seconds: float, max_entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._max_entries = max_entries
        self._clock = clock
        self._entries: dict[K, tuple[float, V]] = {}

    def get(self, key: K) -> V | None:
        """Return the value, or None if there is none or the entry has expired."""
        entry = self._entries.get(key)
        return None if entry is None or self._clock() >= entry[0] else entry[1]

    def put(self, key: K, value: V) -> None:
        now = self._clock()
        self._entries.pop(key, None)  # keeps the order of insertion equal to the order of time
        while self._entries:
            oldest = next(iter(self._entries))
            if len(self._entries) < self._max_entries and now < self._entries[oldest][0]:
                break
            del self._entries[oldest]
        self._entries[key] = (now + self._seconds, value)

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)
