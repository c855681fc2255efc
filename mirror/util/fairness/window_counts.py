"""Counts of events in windows of time, in memory that several processes can share.

Each cell has the beginning of its window and the count in one number. No lock is taken: of two processes that
count at the same moment, one may lose its count. Names with the same hash by chance count as one.
"""

import time
from collections.abc import Callable, Hashable, MutableSequence
from typing import Union

Cells = Union[MutableSequence[float], "memoryview[float]"]  # memoryview is subscriptable from Python 3.14 on

# Cells of a process that shares none, and what the beginning of a window is multiplied by in a cell.
OWN_CELLS = 16 * 1024
COUNTS = 1024


class WindowCounts:
    """Counts by name; a window of `seconds` begins with the first event after the last one."""

    def __init__(
        self, seconds: float, cells: Cells | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`cells`: of all processes, all 0.0 at first; None for those of this process alone."""
        self._seconds = seconds
        self._clock = clock
        self._cells: Cells = [0.0] * OWN_CELLS if cells is None else cells

    def count(self, name: Hashable) -> int:
        """Return the number of events in the window that runs."""
        began, count = divmod(int(self._cells[self._place(name)]), COUNTS)
        return count if int(self._clock()) - began < self._seconds else 0

    def add(self, name: Hashable, number: int = 1) -> int:
        """Count events, or take some back; return the number of all in the window."""
        place, count = self._place(name), self.count(name)
        began = int(self._cells[place]) // COUNTS if count else int(self._clock())
        total = min(max(0, count + number), COUNTS - 1)
        self._cells[place] = float(began * COUNTS + total)
        return total

    def _place(self, name: Hashable) -> int:
        return hash(name) % len(self._cells)
