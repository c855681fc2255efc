"""Metrics of the service: gauges that are sampled for a scrape, and the sums over all workers."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from mirror.metrics.families import Family, render
from mirror.metrics.metrics import Metrics
from mirror.metrics.multiprocess import MultiprocessMetrics
from mirror.service.state import ServiceState
from mirror.service.warm_lists import WarmLists
from mirror.store.blobs.fsck import scrub_progress
from mirror.store.errors import StoreError
from mirror.store.store import Store
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.fairness.turns import LookupTurns
from mirror.util.tasks import Tasks

if TYPE_CHECKING:
    from mirror.hosted.registry import HostedRegistry
    from mirror.hosted.uploads import Uploads
    from mirror.shared.tier import SharedTier


class SampledParts(Struct, frozen=True):
    """Parts of a service whose gauges are sampled. `hosted` and `uploads` go together."""

    store: Store
    tasks: Tasks
    lookups: LookupTurns
    upstreams: UpstreamSet
    warm: WarmLists
    state: ServiceState
    tier: "SharedTier | None"
    hosted: "HostedRegistry | None"
    uploads: "Uploads | None"


class ServiceStatistics:
    """The metrics of this process, and of all workers once it has joined them."""

    def __init__(self, metrics: Metrics, parts: SampledParts) -> None:
        self._metrics = metrics
        self._parts = parts
        self._multiprocess: MultiprocessMetrics | None = None  # with several workers

    async def refresh(self) -> None:
        """Bring the gauges up to date; some are computed only for a scrape."""
        parts, metrics = self._parts, self._metrics
        metrics.requests.flush_pending()
        metrics.tasks.set(parts.tasks.running)
        metrics.lookups_waiting.set(parts.lookups.waiting)
        parts.upstreams.report(metrics)
        self._report_warm()
        if parts.tier is not None:
            metrics.shared_up.labels("objects").set(parts.tier.usable)
            metrics.shared_up.labels("leases").set(parts.tier.coordinated)
        metrics.cache_trouble.clear()
        for trouble in parts.state.troubles():
            metrics.cache_trouble.labels(trouble["what"], trouble["kind"]).set(1)
        await self._sample_folder(parts.store)
        await self._sample_hosted()

    async def _sample_folder(self, store: Store) -> None:
        metrics, folder = self._metrics, store.folder
        size, entries = await store.upkeep.stats()
        metrics.cache_bytes.set(size)
        metrics.cache_entries.set(entries)
        metrics.cache_min_free.set(folder.evictor.quota.min_free)
        metrics.cache_allowed.set(await store.executor.run(folder.evictor.size_limit))
        progress = await store.executor.run(scrub_progress, folder.path)
        metrics.scrub_progress.set(0.0 if progress is None else progress.share)
        pinned = await store.executor.run(folder.pins.pinned_sizes)
        metrics.cache_pinned.set(sum(pinned.values()))
        retained, _ = await store.executor.run(folder.blobs.retention.totals)
        metrics.cache_retained.set(retained)

    async def _sample_hosted(self) -> None:
        hosted, uploads = self._parts.hosted, self._parts.uploads
        if hosted is not None:
            for name, held in (await hosted.store.room.held(list(hosted))).items():
                self._metrics.hosted_bytes.labels(name).set(held)
        if uploads is not None:
            count, size = await uploads.totals()
            self._metrics.open_uploads.set(count)
            self._metrics.upload_bytes.set(size)

    def _report_warm(self) -> None:
        for each in self._parts.warm.status():
            name = each["name"]
            self._metrics.warm_next.labels(name).set(each["next"])
            self._metrics.warm_last.labels(name).set(each["last_ended"] or 0)
            self._metrics.warm_failed.labels(name).set(each["failed"])

    async def families(self) -> list[Family]:
        """Return the metrics of this process."""
        # With a bad disk, the other metrics tell the operator about it.
        with suppress(StoreError):
            await self.refresh()
        # In a thread: the metrics of the process are read from /proc.
        return await asyncio.to_thread(self._metrics.families)

    async def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return body and Content-Type for a Prometheus scrape with that Accept, of all workers together."""
        families = await (self.families() if self._multiprocess is None else self._multiprocess.sum())
        return await asyncio.to_thread(render, families, accept)

    async def join_workers(self, multiprocess: MultiprocessMetrics, *, periodically: bool = True) -> None:
        """Share metrics with the other workers, those before and after this one too. Raises OSError.

        `periodically`: write them from time to time; a worker that is alone writes at scrapes and at its end.
        """
        await multiprocess.open()
        self._multiprocess = multiprocess
        if periodically:
            self._parts.tasks.spawn(multiprocess.write_periodically(), name="multiprocess metrics")

    async def close(self) -> None:
        """Write the metrics of this process for the last time, if it has joined other workers."""
        if self._multiprocess is not None:
            await self._multiprocess.close()
