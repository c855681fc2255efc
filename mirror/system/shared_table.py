"""Numbers about clients in memory that all workers share, found by the hash of a name.

    cells   for each slot one number, which every worker writes: the state of a token bucket
    rows    for each slot one number for each worker, which that worker alone writes: what it has of something
    attempts    for each slot one number, which every worker writes: wrong credentials, in windows of time

No lock is taken. Of two workers that write a cell at the same moment, one loses its change. Two names that
have the same slot by chance count as one: with a thousand names in use, one name in sixty.

The parent makes the table before it forks, so that a name has the same hash in all workers. Memory that no
worker touches is not allocated.
"""

import mmap
import time
from collections.abc import Callable, Hashable

SLOTS = 64 * 1024

# Workers with a row; a worker beyond that has a table of its own. During a reload there are twice as many
# workers as are configured.
ROWS = 64

# Slots in a page of 4096 bytes: pages that were never written are neither read nor cleared.
PAGE_SLOTS = 4096 // (4 * ROWS)

# A note about what is active now holds for this time, in seconds: its worker may have ended.
FRESH_SECONDS = 1.0

# The largest number in a note, and the units of its time in a second.
MOST, UNITS = 0xFFFF, 10


class SharedTable:
    """The table. Created before the fork; in a process that does not fork, it is that process's own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.cells = memoryview(mmap.mmap(-1, SLOTS * 8)).cast("d")
        self.attempts = memoryview(mmap.mmap(-1, SLOTS * 8)).cast("d")
        self._rows = memoryview(mmap.mmap(-1, SLOTS * ROWS * 4)).cast("I")
        self._written = mmap.mmap(-1, SLOTS // PAGE_SLOTS)

    @staticmethod
    def slot(name: Hashable) -> int:
        """Return the slot of a name. Hashes are random, so that no client can choose another's slot."""
        return hash(name) % SLOTS

    def row(self, number: int) -> "TableRow":
        """Return the row of a worker that begins. What a worker of that number had before is forgotten."""
        if number >= ROWS:
            return SharedTable(self.clock).row(0)
        for page in (each for each, written in enumerate(self._written[:]) if written):
            start = page * PAGE_SLOTS * ROWS + number
            for index in range(start, start + PAGE_SLOTS * ROWS, ROWS):
                self._rows[index] = 0
        return TableRow(self, number)

    def values(self, slot: int) -> list[int]:
        """Return the numbers of all workers in a slot."""
        if not self._written[slot // PAGE_SLOTS]:
            return []
        return self._rows[slot * ROWS : (slot + 1) * ROWS].tolist()

    def set(self, slot: int, number: int, value: int) -> None:
        """Write the number of a worker in a slot."""
        self._written[slot // PAGE_SLOTS] = 1
        self._rows[slot * ROWS + number] = value


class TableRow:
    """The numbers of one worker, and their sums over all workers."""

    def __init__(self, table: SharedTable, number: int) -> None:
        self.table = table
        self._number = number
        self._own: dict[int, int] = {}

    def add(self, slot: int, difference: int) -> None:
        """Change what this worker has in a slot."""
        value = self._own[slot] = self._own.get(slot, 0) + difference
        if not value:
            del self._own[slot]
        self.table.set(slot, self._number, value)

    def total(self, slot: int) -> int:
        """Return what all workers have in a slot, after `add`."""
        return sum(self.table.values(slot))

    def note_active(self, slot: int, count: int) -> None:
        """Note how much is active in this worker now."""
        self.table.set(slot, self._number, self._now() << 16 | min(count, MOST))

    def active(self, slot: int) -> int:
        """Return how much is active in all workers, by what each has noted lately."""
        now = self._now()
        return sum(
            each & MOST
            for each in self.table.values(slot)
            if each and (now - (each >> 16)) & MOST <= FRESH_SECONDS * UNITS
        )

    def _now(self) -> int:
        return int(self.table.clock() * UNITS) & MOST
