"""The site: its lines, its object store, its coordinator, and their counts."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.errors import ObjectMissing, TierError, TierFault
from mirror.shared.interfaces import Holder, TierObject, TierRange
from mirror.shared.memory import MemoryLeases, MemoryTier
from mirror.util.callbacks import ignore
from mirror.util.slots import SlotPool
from tests.bench.swarm.lines import Line
from tests.bench.swarm.upstream import GrowingBlob

GIGABIT = 125e6

# Seconds to the coordinator and back, and to the object store.
LEASE_SECONDS, STAT_SECONDS = 0.001, 0.005


@dataclass(frozen=True)
class Plan:
    """The parameters of a simulation; times in seconds, rates in bytes a second."""

    mirrors: int = 1000
    layers: int = 10
    layer_bytes: int = 100 * 1024 * 1024
    within: float = 60.0
    kills: int = 5
    flush: bool = True
    at_once: int = 3  # layers of one pull
    line: float = GIGABIT  # of each mirror, each way
    store_line: float = 10 * GIGABIT
    wan: float = GIGABIT  # of each mirror, to the upstream
    seed: int = 1


@dataclass
class Figures:
    """The counts of one simulation."""

    lease_operations: Counter[int] = field(default_factory=Counter)  # by the second
    stats: int = 0
    upstream_bytes: int = 0
    lost_bytes: int = 0  # that a killed mirror had, and no other
    gap_bytes: int = 0  # of these, what came after a gap, where others cannot read
    finished: list[float] = field(default_factory=list)
    killed: int = 0
    fills_upstream: int = 0


class Site:
    """The engines that all mirrors share."""

    def __init__(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.figures = Figures()
        self.metrics = Metrics()
        self.slots = SlotPool(1_000_000)
        self.leases = MemoryLeases(loop.time)
        self.store = SizedTier(self)
        self.store_line = Line(loop, plan.store_line)
        self.layers = [Digest.of(f"layer {number}".encode()) for number in range(plan.layers)]
        self.mirrors: dict[str, Any] = {}  # by address
        self.on_lead: Callable[[Any, Digest, GrowingBlob], object] = ignore  # a fill begins at the upstream

    def flush(self) -> None:
        """Forget all leases, as FLUSHALL does."""
        self.leases = MemoryLeases(self.loop.time)


class SizedTier(MemoryTier):
    """An object store that knows which blobs it has, and no bytes."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.loop.time)
        self._site = site
        self.stored: set[Digest] = set()

    async def stat(self, digest: Digest) -> TierObject | None:
        self._site.figures.stats += 1
        await asyncio.sleep(STAT_SECONDS)
        if digest not in self.stored:
            return None
        return TierObject(digest, self._site.plan.layer_bytes, 0.0)

    @asynccontextmanager
    async def open_range(self, digest: Digest, span: Span) -> AsyncGenerator[TierRange]:
        raise ObjectMissing(TierFault.WRONG, f"{digest} is read by the simulation alone, not {span}")
        yield


class MirrorLeases:
    """The coordinator as one mirror reaches it: each operation takes time, and is counted."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.dead = False

    async def acquire(self, key: str, holder: Holder, seconds: float) -> Holder:
        await self._ask()
        return await self._site.leases.acquire(key, holder, seconds)

    async def renew(self, key: str, holder: Holder, seconds: float) -> bool:
        await self._ask()
        return await self._site.leases.renew(key, holder, seconds)

    async def release(self, key: str, holder: Holder) -> None:
        await self._ask()
        await self._site.leases.release(key, holder)

    async def holder(self, key: str) -> Holder | None:
        await self._ask()
        return await self._site.leases.holder(key)

    async def close(self) -> None:
        """Keep the leases of other mirrors."""

    async def _ask(self) -> None:
        if self.dead:
            raise TierError(TierFault.UNREACHABLE, "this mirror was killed")
        self._site.figures.lease_operations[int(self._site.loop.time())] += 1
        await asyncio.sleep(LEASE_SECONDS)
