"""The limiter: what clients may use of this mirror, asked by the requests of one process.

    requests       wait for their time, LONGEST_WAIT at the most; beyond that 429
    connections    wait for a free one as long; only those with a running request count
    bandwidth      bodies wait for their turn, slice by slice (mirror/util/fairness/line.py)
    upstream, fills    the budget that a request carries (mirror/web/limits/budget.py)

Bounds are for all workers together. These share their counts without a lock: what two of them change at the
same moment may be lost once (mirror/system/shared_table.py).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager

from mirror.access.identity import Identity
from mirror.access.limits import Limit, LimitTable, Shared
from mirror.access.policy import ConnectionScope
from mirror.metrics.metrics import Metrics
from mirror.oci.errors import RegistryError
from mirror.system.shared_table import SharedTable, TableRow
from mirror.util.fairness.budget import set_budget
from mirror.util.fairness.token_bucket import TokenBucket
from mirror.util.tasks import Tasks
from mirror.web.limits.budget import Budgets, Usage, Write
from mirror.web.limits.contents import ContentChecks
from mirror.web.limits.lines import LineTable
from mirror.web.limits.places import Bound, Places
from mirror.web.limits.refusal import LimitExceeded
from mirror.web.request_log import RequestRecord

# Longest time, in seconds, that a request waits for a bound on requests: clients wait 20 to 30 s for a head.
LONGEST_WAIT = 10.0

# Retry-After, in seconds, where all connections are in use: requests end all the time.
BUSY_SECONDS = 2.0

# Returns the scope of a connection by its other end's address, and by what that has proven.
ScopeOf = Callable[[str, tuple[str, ...]], ConnectionScope]

# Returns the rights of the client of a request; None where its response is for it alone.
RightsOf = Callable[[RequestRecord], Hashable | None]


class Limiter:
    """All limits, for one process. `row`: its numbers among those of all workers."""

    def __init__(
        self,
        table: LimitTable,
        metrics: Metrics,
        write_usage: Write,
        row: TableRow | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`write_usage`, `clock`: as for Usage. Without `row` this process is alone."""
        self._table = table
        self._metrics = metrics
        self._row = row = row or SharedTable().row(0)
        self._tasks = Tasks()
        self._usage = Usage(write_usage, self._tasks, clock)
        self._budgets = Budgets(row, self._usage)
        self._lines = LineTable(row)
        self._connections = Places(row)
        self.longest_wait = LONGEST_WAIT
        self.pause: Callable[[float], Awaitable[object]] = asyncio.sleep

    def scoped(self, scope_of: ScopeOf) -> ScopeOf:
        """Return a scope of connections that keeps apart whom limits refuse content that others may have."""

        def scope(peer: str, names: tuple[str, ...] = ()) -> ConnectionScope:
            refusing = (f"limit {number}" for number in self._table.refusing(peer))
            return (*scope_of(peer, names), *refusing)

        return scope

    def apart(self, rights_of: RightsOf) -> RightsOf:
        """Return rights of clients that keep apart whom limits refuse content that others may have."""

        def rights(record: RequestRecord) -> Hashable | None:
            found = rights_of(record)
            about = self._table.about(record.identity)
            refusing = tuple(each.limit.number for each in about if each.limit.bounds.blob is not None)
            spending = tuple(each for each in about if each.limit.bounds.upstream_bytes is not None)
            return None if found is None else (found, refusing, spending)

        return rights

    async def close(self) -> None:
        """Write what has been used."""
        await self._usage.close()

    def passes(self, identity: Identity, length: int) -> bool:
        """Count a request that is answered at once, with a body of `length` bytes.

        False, and nothing is counted, if the request has to wait or is refused.
        """
        shared = self._table.about(identity)
        buckets = self._buckets(shared)
        if (
            any(bucket.wait(1) > 0 for _, bucket in buckets)
            or self._connections.lacking(_connections(shared)) is not None
        ):
            return False
        if not self._lines.charge(shared, length):
            return False
        for _, bucket in buckets:
            bucket.take(1)
        return True

    @asynccontextmanager
    async def admitted(self, record: RequestRecord) -> AsyncIterator[None]:
        """Let a request wait for its time, and count it while it runs. Raises LimitExceeded, 429."""
        shared = self._table.about(record.identity)
        try:
            await self._pace(record, shared)
            record.pacer = self._lines.pacer(shared, record.identity, record.id)
            budget, largest = await self._budgets.of(shared), largest_of(shared)
            set_budget(budget)
            if budget is not None or largest is not None:
                record.checks = ContentChecks(largest, budget)
            async with self._connected(record, shared):
                yield
        except LimitExceeded as exceeded:
            self._metrics.limited.labels(exceeded.limit.name, exceeded.bound).inc()
            raise

    async def refusal(self, record: RequestRecord, refused: RegistryError) -> RegistryError:
        """Return the refusal of wrong credentials in its time: such requests count as well. As `admitted`."""
        async with self.admitted(record):
            return refused

    async def _pace(self, record: RequestRecord, shared: Sequence[Shared]) -> None:
        """Wait for the time of a request. Raises LimitExceeded if that is too far."""
        buckets, longest = self._buckets(shared), 0.0
        for limit, bucket in buckets:
            seconds = bucket.wait(1)
            if seconds > self.longest_wait:
                raise LimitExceeded(limit, "requests", "too many requests", seconds)
            longest = max(longest, seconds)
        for _, bucket in buckets:
            bucket.take(1)
        if longest > 0:
            record.waited = longest
            await self.pause(longest)

    @asynccontextmanager
    async def _connected(self, record: RequestRecord, shared: Sequence[Shared]) -> AsyncIterator[None]:
        """Count a connection that is in use; wait for a free one. Raises LimitExceeded after LONGEST_WAIT."""
        bounds = _connections(shared)
        if self._connections.lacking(bounds) is not None:
            began = self._row.table.clock()
            full = await self._connections.wait(bounds, self.longest_wait)
            record.waited += self._row.table.clock() - began
            if full is not None:
                message = "all connections that are allowed are in use"
                raise LimitExceeded(full.limit, "connections", message, BUSY_SECONDS)
        give_back = self._connections.take(bounds)
        try:
            yield
        finally:
            give_back()

    def _buckets(self, shared: Sequence[Shared]) -> list[tuple[Limit, TokenBucket]]:
        return [
            (each.limit, self._bucket(each, each.limit.bounds.requests))
            for each in shared
            if each.limit.bounds.requests is not None
        ]

    def _bucket(self, shared: Shared, rate: float) -> TokenBucket:
        table = self._row.table
        slot = SharedTable.slot(("requests", shared.limit.name, shared.sharer))
        return TokenBucket(rate, shared.limit.bounds.burst, table.cells, slot, table.clock)


def largest_of(shared: Sequence[Shared]) -> tuple[int, Limit] | None:
    """Return the size of the largest blob that a client may have, and the limit that says so."""
    found = [(each.limit.bounds.blob, each.limit) for each in shared if each.limit.bounds.blob is not None]
    return min(found, key=lambda pair: pair[0], default=None)


def _connections(shared: Sequence[Shared]) -> list[Bound]:
    return [
        Bound.of("connections", each, each.limit.bounds.connections)
        for each in shared
        if each.limit.bounds.connections is not None
    ]
