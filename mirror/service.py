"""The composition root: a configuration becomes everything that answers requests."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from mirror.cache.cache import Cache
from mirror.config.schema import Config
from mirror.metrics.metrics import Family, Metrics, render
from mirror.metrics.multiprocess import MultiprocessMetrics
from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import EvictedBlob, EvictionReason
from mirror.store.blobs.fsck import HARMLESS, FsckStep
from mirror.store.errors import StoreError
from mirror.store.scrub import Scrub
from mirror.store.store import Store
from mirror.system.malloc import trim_heap
from mirror.transfer.context import TransferContext
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks

log = get_logger(__name__)

# Last-use times are written this often, in seconds: a crash loses that much of the eviction order.
HOUSEKEEPING_SECONDS = 10.0

# What is said of what was evicted, by the reason.
EVICTIONS = {
    EvictionReason.ROOM: "evicted to make room, least recently used first",
    EvictionReason.USED: "evicted a moment after it was used: there is less room than is pulled at a time",
    EvictionReason.AGE: "evicted because nobody has used it for longer than cache.max_age",
}


class Service:
    """One running mirror, without its network face. Make it with `open`."""

    def __init__(self, config: Config, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.metrics = Metrics()
        self.multiprocess: MultiprocessMetrics | None = None  # of several workers
        self._tasks = Tasks()
        self._store = store
        store.on_evicted = self._evicted
        self.removal_epoch = store.folder.epoch.removed
        self._upstreams = UpstreamSet(config, self.metrics, self._tasks)
        context = TransferContext(store, self._tasks, self.metrics, config.fill, clock=clock)
        self.cache = Cache(context, self._upstreams, config.tags)

    @classmethod
    async def open(cls, config: Config, clock: Callable[[], float] = time.time) -> "Service":
        """`clock`: seconds since the epoch. Raises StoreError when the cache folder cannot be used."""
        store = await Store.open(config.cache.dir, config.cache)
        await store.configure_pins(config.pins())
        service = cls(config, store, clock)
        service._tasks.spawn(service._warm_up(), name="warm up")
        service._tasks.spawn(service._run_housekeeping(), name="housekeeping")
        scrub = Scrub(store.folder, config.cache.scrub, service._scrubbed)
        service._tasks.spawn(scrub.run(), name="scrub")
        return service

    def record_use(self, digest: Digest) -> None:
        """It was given to a client by somebody who did not have to ask the cache."""
        self._store.touch(digest)

    def upstreams(self) -> dict[str, Any]:
        """How each upstream is doing, for people."""
        return self._upstreams.state()

    def troubles(self) -> list[dict[str, Any]]:
        """What is wrong with the cache folder, for people."""
        return [
            {
                "what": each.capability.value,
                "kind": each.kind.value,
                "reason": each.reason,
                "to_do": each.advice,
                "since": each.since,
            }
            for each in self._store.health.faults()
        ]

    async def refresh_stats(self) -> None:
        """Bring the gauges about the cache up to date, and what else is asked for only here."""
        self.metrics.requests.flush_pending()
        self.metrics.tasks.set(self._tasks.running)
        self._upstreams.report(self.metrics)
        self.metrics.cache_trouble.clear()
        for trouble in self._store.health.faults():
            self.metrics.cache_trouble.labels(trouble.capability.value, trouble.kind.value).set(1)
        size, entries = await self._store.stats()
        self.metrics.cache_bytes.set(size)
        self.metrics.cache_entries.set(entries)

    async def metric_families(self) -> list[Family]:
        """What this process has counted."""
        # With a bad disk the other metrics are what tells the operator.
        with suppress(StoreError):
            await self.refresh_stats()
        # In a thread: what is told about the process is read from files.
        return await asyncio.to_thread(self.metrics.families)

    async def exposition(self) -> tuple[bytes, str]:
        """Body and Content-Type for a Prometheus scrape, of all workers together."""
        counted = await (self.metric_families() if self.multiprocess is None else self.multiprocess.sum())
        return await asyncio.to_thread(render, counted)

    async def join_workers(self, multiprocess: MultiprocessMetrics) -> None:
        """Be one of several workers. OSError."""
        await multiprocess.open()
        self.multiprocess = multiprocess
        self._tasks.spawn(multiprocess.write_periodically(), name="ledger")

    async def close(self) -> None:
        """Stop fills where they are (the next start resumes them), and close everything."""
        self.cache.stop_prefetch()
        await self._tasks.close()
        if self.multiprocess is not None:
            await self.multiprocess.close()
        await self._upstreams.close()
        await self._store.close()

    def _evicted(self, gone: Sequence[EvictedBlob]) -> None:
        for why, told in EVICTIONS.items():
            some = [each for each in gone if each.reason is why]
            size = sum(each.size for each in some)
            self.metrics.evicted_blobs.labels(why.value).inc(len(some))
            self.metrics.evicted_bytes.labels(why.value).inc(size)
            for each in some:
                log.debug("evicted", digest=str(each.digest), bytes=each.size, reason=why.value)
            if some:
                log.info(told, blobs=len(some), bytes=size)
            if some and why is EvictionReason.USED:
                self.cache.pause_prefetch()

    def _scrubbed(self, step: FsckStep) -> None:
        self.metrics.scrubbed_bytes.inc(step.read)
        if step.finding is not None and step.finding.wrong not in HARMLESS:
            self.metrics.scrub_wrong.inc()

    async def _warm_up(self) -> None:
        """What the first request would wait for, 20 ms of it, while there is none."""
        await self._upstreams.warm_up()
        with suppress(StoreError):
            await self._store.warm_up()

    async def _run_housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            try:
                await self._store.run_housekeeping()
            except StoreError as error:
                log.warning("housekeeping failed", reason=str(error))
            await asyncio.to_thread(trim_heap)
