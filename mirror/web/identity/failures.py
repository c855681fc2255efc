"""Wrong passwords of the last minute, by client and user: guessing is made slow, other clients are not.

Workers share the counts: a client comes to each of them with another connection.
"""

from collections.abc import Callable

from mirror.util.fairness.window_counts import Cells, WindowCounts

# The time, in seconds, for which failures are counted.
WINDOW_SECONDS = 60.0

# Failures in this time after which no password is hashed: for one user from one address, and for one
# address, where many machines may share it.
MOST_FOR_USER, MOST_FOR_ADDRESS = 10, 100


class Failures:
    """Counts with a window each. `cells`, `clock`: as for WindowCounts."""

    def __init__(self, clock: Callable[[], float], cells: Cells | None = None) -> None:
        self._counts = WindowCounts(WINDOW_SECONDS, cells, clock)

    def blocked(self, address: str, user: str) -> bool:
        """Return whether there were too many failures for this user from there, or from there in all."""
        of_user, of_address = self._counts.count((address, user)), self._counts.count((address,))
        return of_user >= MOST_FOR_USER or of_address >= MOST_FOR_ADDRESS

    def note(self, address: str, user: str) -> bool:
        """Count a failure; return whether it was the one that made too many."""
        of_user, of_address = self._counts.add((address, user)), self._counts.add((address,))
        return of_user == MOST_FOR_USER or of_address == MOST_FOR_ADDRESS
