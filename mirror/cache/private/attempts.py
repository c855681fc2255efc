"""Wrong credentials: counted, so that guessing goes to no upstream.

A registry locks an account after some wrong passwords, and counts requests by address: by this mirror's. So
of one network, and for one user at one upstream, a few wrong passwords are passed on in some minutes. Beyond
that an attempt is refused unasked. The same wrong credentials are passed on once in that time by a worker.

Workers share the counts, without a lock: the upstream sees one mirror. Each cell has the beginning of its
window and the count in one number. Names with the same hash by chance count as one.
"""

import time
from collections.abc import Callable, Hashable, MutableSequence
from typing import Union

Cells = Union[MutableSequence[float], "memoryview[float]"]  # memoryview is subscriptable from Python 3.14 on

# Wrong credentials that are passed on in WINDOW seconds: of one network, and for one user at one upstream.
# Docker Hub locks an account for ten minutes after some ten.
OF_NETWORK = 20
FOR_USER = 5
WINDOW = 300.0

# Cells of a process that shares none, and what the beginning of a window is multiplied by in a cell.
OWN_CELLS = 16 * 1024
COUNTS = 1024


class FailedAttempts:
    """Wrong credentials by network, and by upstream and user, in windows of WINDOW seconds."""

    def __init__(self, cells: Cells | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`cells`: of all workers, all 0.0 at first; None for those of this process alone."""
        self._clock = clock
        self._cells: Cells = [0.0] * OWN_CELLS if cells is None else cells

    def begin(self, network: str, upstream: str, user: str) -> bool:
        """Return whether one more attempt is passed on. It counts as wrong until `forgive`.

        So a crowd of attempts at a time is bounded too. `user`: empty for a token.
        """
        keys = _keys(network, upstream, user)
        if any(self._count(key) >= limit for key, limit in keys.items()):
            return False
        for key in keys:
            self._add(key, 1)
        return True

    def forgive(self, network: str, upstream: str, user: str) -> None:
        """Take back the count of an attempt that was not wrong."""
        for key in _keys(network, upstream, user):
            self._add(key, -1)

    def _count(self, key: Hashable) -> int:
        began, count = divmod(int(self._cells[self._place(key)]), COUNTS)
        return count if int(self._clock()) - began < WINDOW else 0

    def _add(self, key: Hashable, number: int) -> None:
        place, count = self._place(key), self._count(key)
        began = int(self._cells[place]) // COUNTS if count else int(self._clock())
        self._cells[place] = float(began * COUNTS + max(0, count + number))

    def _place(self, key: Hashable) -> int:
        return hash(key) % len(self._cells)


def _keys(network: str, upstream: str, user: str) -> dict[Hashable, int]:
    return {network: OF_NETWORK, **({(upstream, user): FOR_USER} if user else {})}
