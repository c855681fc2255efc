"""The composition root: builds everything that answers requests from a configuration."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from mirror.cache.cache import Cache
from mirror.config.schema import Config
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.service.state import ServiceState
from mirror.service.statistics import SampledParts, ServiceStatistics
from mirror.service.warm_lists import WarmLists
from mirror.store.blobs.entries import EvictedBlob, EvictionReason
from mirror.store.blobs.fsck import HARMLESS, FsckStep
from mirror.store.blobs.room_watch import RoomWatch
from mirror.store.errors import StoreError
from mirror.store.folder.pruning import IndexPruner
from mirror.store.hosted.opened import open_store
from mirror.store.metadata.hosted_names import HostedNames, NameClash
from mirror.store.metadata.usage import UsageBook
from mirror.store.scrub import Scrub
from mirror.store.store import Store
from mirror.system.cpu_load import CpuLoad
from mirror.system.malloc import limit_arenas, trim_heap
from mirror.transfer.context import TransferContext
from mirror.transfer.plan import DEFAULT_LIMITS, PlanLimits
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.fairness.processor_shares import ProcessorShares
from mirror.util.fairness.turns import LookupTurns
from mirror.util.log import get_logger
from mirror.util.log_writer import lines_dropped
from mirror.util.tasks import Tasks

if TYPE_CHECKING:
    from mirror.hosted.opening import HostedUpkeep
    from mirror.hosted.registry import HostedRegistry
    from mirror.hosted.uploads import Uploads
    from mirror.shared.tier import SharedTier
    from mirror.system.shared_table import SharedTable
    from mirror.transfer.shared.shared_fill import SharedTransfers

log = get_logger(__name__)

# Interval of housekeeping, in seconds. Last-use times are written then: a crash loses this much of the
# eviction order.
HOUSEKEEPING_SECONDS = 10.0

# Log events of evictions, by reason.
EVICTIONS = {
    EvictionReason.ROOM: "evicted to make room, least recently used first",
    EvictionReason.USED: "evicted a moment after use: the cache has less room than clients pull at a time",
    EvictionReason.AGE: "evicted because unused for longer than cache.max_age",
    EvictionReason.SHARE: "evicted to keep a repository within its share, by cache.rules",
}


class Service:
    """One running mirror without its HTTP server. Create with `open`."""

    def __init__(
        self,
        config: Config,
        store: Store,
        clock: Callable[[], float] = time.time,
        limits: PlanLimits = DEFAULT_LIMITS,
        table: "SharedTable | None" = None,
    ) -> None:
        self.metrics = Metrics(lines_dropped)
        self._tasks = Tasks()
        self._store = store
        self.folder = store.folder
        store.room.on_evicted = self._on_evicted
        self._room = RoomWatch(store.folder.evictor.shortage)
        self._pruner = IndexPruner(store.folder.index, store.folder.blobs)
        self.removal_epoch = store.folder.epoch.removals
        self.access_epoch = store.folder.epoch.access_changes
        self.push_epoch = store.folder.epoch.pushes
        self.note_access_change = store.folder.epoch.note_access_change
        self._upstreams = UpstreamSet(config, self.metrics, self._tasks)
        self.upstream_details = self._upstreams.details
        accounts = self._upstreams.use_accounts
        store.folder.reader.trusts_unknown = not accounts
        self.attempts = None if table is None else table.attempts
        self.lookups = LookupTurns(CpuLoad(limits.busy_share).saturated)
        self.processor_shares = ProcessorShares(CpuLoad(limits.busy_share).saturated)
        context = TransferContext(
            store,
            self._tasks,
            self.metrics,
            config.fill,
            clock=clock,
            limits=limits,
            accounts=accounts,
            lookups=self.lookups,
            idle_seconds=self._upstreams.slots.idle_seconds,
            attempts=self.attempts,
        )
        self.shared: SharedTransfers | None = None
        if config.shared.bucket is not None:
            from mirror.transfer.shared.opening import open_shared

            self.shared, context = open_shared(config.shared, context, self._upstreams, store)
        self.cache = Cache(context, self._upstreams, config.tags)
        self.warm = WarmLists(store, self.cache)
        self.hosted, self.uploads, self._hosted_upkeep = self._host(config)
        tier = None if self.shared is None else self.shared.tier
        self.state = ServiceState(self._upstreams, store.health, self._room, tier)
        self.statistics = ServiceStatistics(self.metrics, self._sampled_parts(tier))

    def _sampled_parts(self, tier: "SharedTier | None") -> SampledParts:
        return SampledParts(
            store=self._store,
            tasks=self._tasks,
            lookups=self.lookups,
            upstreams=self._upstreams,
            warm=self.warm,
            state=self.state,
            tier=tier,
            hosted=self.hosted,
            uploads=self.uploads,
        )

    def _host(self, config: Config) -> "tuple[HostedRegistry | None, Uploads | None, HostedUpkeep | None]":
        """Answer for the hosted registries of the configuration, if any; import what that needs."""
        if not config.hosted:
            return None, None, None
        from mirror.hosted.opening import open_hosted

        return open_hosted(self._store, config.hosted, self._tasks, self.cache, self.metrics)

    @classmethod
    async def open(
        cls,
        config: Config,
        clock: Callable[[], float] = time.time,
        limits: PlanLimits = DEFAULT_LIMITS,
        table: "SharedTable | None" = None,
    ) -> "Service":
        """Open the cache folder and start the background tasks. StoreError when the folder cannot be used.

        `clock`: seconds since the epoch; `limits`: thresholds of the downloads. `table`: what all workers
        share about their clients.
        """
        limit_arenas()
        store = await open_store(config.cache.dir, config.cache)
        await _note_hosted(store, config)
        await store.upkeep.configure_pins(config.pins())
        service = cls(config, store, clock, limits, table)
        await service._look_at_room()
        service._tasks.spawn(service._run_housekeeping(), name="housekeeping")
        service.warm.schedule(config, service._tasks, clock)
        scrub = Scrub(store.folder, config.cache.scrub, service._on_scrubbed)
        service._tasks.spawn(scrub.run(), name="scrub")
        return service

    @classmethod
    async def open_beside(cls, config: Config) -> "Service":
        """Open the cache folder for a command, beside a running mirror or a stopped one, as one more worker.

        The configuration of a command may be another one than the mirror's: its pins change nothing. Nothing
        is scrubbed. StoreError when the folder cannot be used.
        """
        service = cls(config, await open_store(config.cache.dir, config.cache))
        service._tasks.spawn(service._run_housekeeping(), name="housekeeping")
        return service

    def record_use(self, digest: Digest) -> None:
        """Note that a client got `digest` from the response cache, past the cache."""
        self._store.content.touch(digest)

    async def add_usage(self, day: int, amounts: Mapping[str, int]) -> Mapping[str, int]:
        """Add bytes that were fetched for clients to the sums of a day; return the sums.

        Returns none on a failing disk.
        """
        folder = self._store.folder
        try:
            book = UsageBook(folder.index)
            return await self._store.executor.run(folder.recovery.write, book.add, day, amounts)
        except StoreError as error:
            log.debug("use of upstreams not written", reason=str(error))
            return {}

    async def close(self) -> None:
        """Stop fills where they are (the next start resumes them), and close everything."""
        self.cache.prefetch.stop()
        await self._tasks.close()
        await self.statistics.close()
        if self.shared is not None:
            await self.shared.close()
        await self._upstreams.close()
        if self.uploads is not None:
            self.uploads.close()
        await self._store.close()

    def _on_evicted(self, evicted: Sequence[EvictedBlob]) -> None:
        for reason, event in EVICTIONS.items():
            blobs = [each for each in evicted if each.reason is reason]
            size = sum(each.size for each in blobs)
            self.metrics.evicted_blobs.labels(reason.value).inc(len(blobs))
            self.metrics.evicted_bytes.labels(reason.value).inc(size)
            for each in blobs:
                log.debug("evicted", digest=str(each.digest), bytes=each.size, reason=reason.value)
            if blobs:
                log.info(event, blobs=len(blobs), bytes=size)
            if blobs and reason is EvictionReason.USED:
                self.cache.prefetch.pause()

    def _on_scrubbed(self, step: FsckStep) -> None:
        self.metrics.scrubbed_bytes.inc(step.read)
        if step.finding is not None and step.finding.damage not in HARMLESS:
            self.metrics.scrub_wrong.inc()

    def warm_up(self) -> None:
        """Open connections and TLS contexts in the background, which saves the first request 20 ms."""
        self._tasks.spawn(self._warm_up(), name="warm up")

    async def _warm_up(self) -> None:
        await self._upstreams.warm_up()
        with suppress(StoreError):
            await self._store.upkeep.warm_up()

    async def _run_housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            try:
                await self._store.upkeep.run_housekeeping()
                await self._prune_index()
                await self.warm.tick()
                await self._look_after_hosted()
            except StoreError as error:
                if not self._store.health.faults():  # a fault has been logged, once, with what to do
                    log.warning("housekeeping failed", reason=str(error))
            await self._look_at_room()
            await asyncio.to_thread(trim_heap)

    async def _look_after_hosted(self) -> None:
        """Remove what is pushed and not kept; the worker that runs housekeeping does."""
        upkeep = self._hosted_upkeep
        if upkeep is not None and await self._store.executor.run(self.folder.housekeeper.claim):
            await upkeep.run()

    async def _prune_index(self) -> None:
        """Keep the index within its bound; the worker that runs housekeeping does."""
        if await self._store.executor.run(self._store.folder.housekeeper.claim):
            removed = await self._store.executor.run(self._pruner.run)
            if removed:
                log.info("index pruned, links to what is not here removed", rows=removed)

    async def _look_at_room(self) -> None:
        """Look whether there is room for the cache; the worker that runs housekeeping says so."""
        with suppress(StoreError):
            report = await self._store.executor.run(self._store.folder.housekeeper.claim)
            await self._store.executor.run(self._room.look, report=report)


async def _note_hosted(store: Store, config: Config) -> None:
    """Note in the cache folder which registries are hosted. NameClash, a StoreError, if they cannot be."""
    names = HostedNames(store.folder.index)
    try:
        await store.executor.run(
            names.register, [each.name for each in config.hosted], [each.name for each in config.upstreams]
        )
        if config.hosted:
            await store.executor.run(store.folder.blobs.retention.prepare)
    except NameClash:
        raise
    except StoreError as error:
        if config.hosted:
            log.error("hosted registries not noted in the index, nothing can be pushed", reason=str(error))
