"""Wrong passwords of the last minute, by client and user: guessing is made slow, other clients are not."""

from collections.abc import Callable

from mirror.util.lru import LRUCache

# The time, in seconds, for which failures are counted.
WINDOW_SECONDS = 60.0

# Failures in this time after which no password is hashed: for one user from one address, and for one
# address, where many machines may share it.
MOST_FOR_USER, MOST_FOR_ADDRESS = 10, 100

# Room for counters, in bytes: some ten thousand, the ones used least recently give way.
COUNTER_BYTES = 16 * 1024 * 1024


class Failures:
    """Counters with a window each."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counters: LRUCache[tuple[str, ...], tuple[int, float]] = LRUCache(COUNTER_BYTES)

    def blocked(self, address: str, user: str) -> bool:
        """Return whether there were too many failures for this user from there, or from there in all."""
        return self._count((address, user)) >= MOST_FOR_USER or self._count((address,)) >= MOST_FOR_ADDRESS

    def note(self, address: str, user: str) -> bool:
        """Count a failure; return whether it was the one that made too many."""
        of_user, of_address = self._add((address, user)), self._add((address,))
        return of_user == MOST_FOR_USER or of_address == MOST_FOR_ADDRESS

    def _count(self, key: tuple[str, ...]) -> int:
        found = self._counters.get(key)
        return 0 if found is None or found[1] <= self._clock() else found[0]

    def _add(self, key: tuple[str, ...]) -> int:
        count = self._count(key) + 1
        found = self._counters.get(key)
        end = self._clock() + WINDOW_SECONDS if count == 1 or found is None else found[1]
        self._counters.put(key, (count, end), sum(map(len, key)))
        return count
