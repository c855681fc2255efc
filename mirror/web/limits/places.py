"""Places that a client may have at a time: connections in use, downloads that run.

A bound is for all workers together. A request without a place waits for one that is given back in this
worker, in the order of arrival, and looks now and then whether one is free in another. The number of requests
that wait is bounded, too.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from msgspec import Struct

from mirror.access.limits import Limit, Shared
from mirror.system.shared_table import SharedTable, TableRow

# Interval, in seconds, at which the places in other workers are looked at.
LOOK_SECONDS = 0.5

# Requests that may wait for each place: one pull asks for some layers at a time.
WAITING_PER_PLACE = 8


class Bound(Struct, frozen=True):
    """A number of places, `most` at a time, and the slot of their count."""

    limit: Limit
    slot: int
    most: int

    @classmethod
    def of(cls, kind: str, shared: Shared, most: int) -> "Bound":
        """Return the bound of a limit. `kind`: of the places."""
        return cls(shared.limit, SharedTable.slot((kind, shared.limit.name, shared.sharer)), most)


class Places:
    """All places of one kind, as one process sees them."""

    def __init__(self, row: TableRow) -> None:
        self._row = row
        self._waiting: dict[int, deque[asyncio.Event]] = {}

    def lacking(self, bounds: Iterable[Bound]) -> Bound | None:
        """Return a bound that has no free place, or whose next one others wait for; None if there is none."""
        return next((each for each in bounds if self._waiting.get(each.slot) or self._is_full(each)), None)

    def take(self, bounds: Sequence[Bound]) -> Callable[[], None]:
        """Take a place of each bound, beyond it if there is none; return what gives them back, once."""
        slots = [each.slot for each in bounds]
        for slot in slots:
            self._row.add(slot, 1)

        def give_back() -> None:
            while slots:
                slot = slots.pop()
                self._row.add(slot, -1)
                self._wake(slot)

        return give_back

    async def wait(self, bounds: Sequence[Bound], seconds: float) -> Bound | None:
        """Wait until all bounds have a place, at most `seconds`; return the one that has none then.

        The caller takes the places before the next turn of the event loop.
        """
        if self.lacking(bounds) is None:
            return None
        crowded = (each for each in bounds if self._crowd(each.slot) >= WAITING_PER_PLACE * each.most)
        if (full := next(crowded, None)) is not None:
            return full
        clock, turn = asyncio.get_running_loop().time, asyncio.Event()
        deadline = clock() + seconds
        for each in bounds:
            self._waiting.setdefault(each.slot, deque()).append(turn)
        try:
            while (full := next(filter(self._is_full, bounds), None)) is not None and clock() < deadline:
                turn.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK_SECONDS, deadline - clock())):
                        await turn.wait()
            return full
        finally:
            for each in bounds:
                self._leave(each.slot, turn)

    def _crowd(self, slot: int) -> int:
        return len(self._waiting.get(slot, ()))

    def _leave(self, slot: int, turn: asyncio.Event) -> None:
        """Wait no longer for a place; the next one looks whether there is another."""
        queue = self._waiting[slot]
        queue.remove(turn)
        if not queue:
            del self._waiting[slot]
        self._wake(slot)

    def _wake(self, slot: int) -> None:
        if queue := self._waiting.get(slot):
            queue[0].set()

    def _is_full(self, bound: Bound) -> bool:
        return self._row.total(bound.slot) >= bound.most
