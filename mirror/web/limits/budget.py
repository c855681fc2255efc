"""Budgets of downloads: bytes from upstreams in a day, and downloads at a time.

Bytes are counted where they come in, for the client that started the download. They are written in batches:
what a crash loses, and what several workers take too much, is BATCH_BYTES for each worker and client, or
what comes in BATCH_SECONDS. A day is one of UTC.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from mirror.access.limits import Limit, Shared
from mirror.system.shared_table import TableRow
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks
from mirror.web.limits.places import Bound, Places
from mirror.web.limits.refusal import LimitExceeded

log = get_logger(__name__)

DAY_SECONDS = 24 * 3600

BATCH_BYTES = 16 * 1024 * 1024
BATCH_SECONDS = 5.0

# Names whose sums are known, at most.
MOST_KNOWN = 100_000

# Longest time, in seconds, that a download waits for another one of its client.
LONGEST_FILL_WAIT = 10.0

# Adds amounts of a day to what is written, and returns the sums.
Write = Callable[[int, Mapping[str, int]], Awaitable[Mapping[str, int]]]


class Usage:
    """Bytes fetched today, by name. `write`: adds to the sums that all workers have, and returns them."""

    def __init__(self, write: Write, tasks: Tasks, clock: Callable[[], float] = time.time) -> None:
        self._write = write
        self._tasks = tasks
        self._clock = clock
        self._day = 0
        self._written: dict[str, int] = {}
        self._pending: dict[str, int] = {}
        self._unwritten = 0
        self._timer: asyncio.TimerHandle | None = None
        self._flushing = asyncio.Lock()

    @property
    def seconds_left(self) -> float:
        """Seconds until the next day begins."""
        return DAY_SECONDS - self._clock() % DAY_SECONDS

    def used(self, name: str) -> int:
        """Return what this process knows of the bytes of today."""
        self._turn_over()
        return self._written.get(name, 0) + self._pending.get(name, 0)

    async def load(self, name: str) -> None:
        """Read the sum of today, unless it is known."""
        self._turn_over()
        if len(self._written) > MOST_KNOWN:
            self._written = {}  # read again when they are needed
        if name not in self._written:
            await self._exchange({name: 0})

    def add(self, names: Sequence[str], size: int) -> None:
        """Count bytes that came for somebody."""
        self._turn_over()
        for name in names:
            self._pending[name] = self._pending.get(name, 0) + size
        self._unwritten += size
        if self._unwritten >= BATCH_BYTES:
            self._start_flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._start_flush)

    async def flush(self) -> None:
        """Write what has been counted."""
        async with self._flushing:
            pending, self._unwritten = dict(self._pending), 0
            if pending and await self._exchange(pending):
                for name, size in pending.items():
                    if name in self._pending:  # it is still the same day
                        self._pending[name] -= size

    async def close(self) -> None:
        """Write what has been counted, and begin no other write."""
        await self.flush()
        await self._tasks.close()
        if self._timer is not None:
            self._timer.cancel()

    async def _exchange(self, amounts: Mapping[str, int]) -> bool:
        """Add amounts to the sums on disk, and take what is there now; return whether that worked."""
        day = self._day
        sums = await self._write(day, amounts)
        if day == self._day:
            self._written.update(sums)
        return bool(sums)

    def _start_flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unwritten = 0
        if self._tasks.closed:  # a download that ends with the process: its last bytes stay uncounted
            return
        self._tasks.spawn(self.flush(), name="write use of upstreams")

    def _turn_over(self) -> None:
        """Begin a new day, if the last one is over."""
        today = int(self._clock() // DAY_SECONDS)
        if today != self._day:
            self._day = today
            self._written, self._pending = {}, {}


class ClientBudget:
    """The budget of one client: `mirror.util.fairness.budget.DownloadBudget`."""

    def __init__(self, shared: Sequence[Shared], usage: Usage | None, fills: Places) -> None:
        self._usage = usage
        self._fills = fills
        self._quotas = [
            (_name(each), each.limit) for each in shared if each.limit.bounds.upstream_bytes is not None
        ]
        self._names = [name for name, _ in self._quotas]
        self._bounds = [
            Bound.of("fills", each, each.limit.bounds.fills)
            for each in shared
            if each.limit.bounds.fills is not None
        ]

    async def load(self) -> None:
        """Read what was used today."""
        if self._usage is not None:
            for name in self._names:
                await self._usage.load(name)

    def add(self, size: int) -> None:
        """Count bytes that came from an upstream."""
        if self._usage is not None and self._names:
            self._usage.add(self._names, size)

    def check(self) -> None:
        """Raise LimitExceeded if nothing more may be fetched today."""
        if self._usage is None:
            return
        for name, limit in self._quotas:
            most = limit.bounds.upstream_bytes
            if most is not None and self._usage.used(name) >= most:
                message = "what may be fetched from registries in a day is used up; what is cached can be had"
                raise LimitExceeded(limit, "upstream_per_day", message, self._usage.seconds_left)

    async def wait_for_fill(self) -> None:
        """Wait until one more download may begin."""
        full = await self._fills.wait(self._bounds, LONGEST_FILL_WAIT)
        if full is not None:
            message = "as many downloads as are allowed are running"
            raise LimitExceeded(full.limit, "fills", message, LONGEST_FILL_WAIT)

    def begin_fill(self) -> Callable[[], None]:
        """Count a download that begins; return the function to call when the client leaves it."""
        return self._fills.take(self._bounds)


class Budgets:
    """Maker of the budgets of one process."""

    def __init__(self, row: TableRow, usage: Usage | None) -> None:
        self._usage = usage
        self._fills = Places(row)

    async def of(self, shared: Sequence[Shared]) -> ClientBudget | None:
        """Return the budget of a client, None for one without bounds."""
        if not any(_bounds_downloads(each.limit) for each in shared):
            return None
        budget = ClientBudget(shared, self._usage, self._fills)
        await budget.load()
        return budget


def _bounds_downloads(limit: Limit) -> bool:
    return limit.bounds.upstream_bytes is not None or limit.bounds.fills is not None


def _name(shared: Shared) -> str:
    return f"{shared.limit.name}:{shared.sharer}"
