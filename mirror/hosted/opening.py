"""The hosted registries of a configuration, opened together, and what is done for them in the background."""

from collections.abc import Sequence

from mirror.cache.cache import Cache
from mirror.config.hosting.hosted import HostedSettings
from mirror.hosted.registry import HostedRegistry
from mirror.hosted.uploads import Uploads
from mirror.metrics.metrics import Metrics
from mirror.store.hosted.opened import settle_old
from mirror.store.store import Store
from mirror.util.tasks import Tasks


class HostedUpkeep:
    """Removal of what no client or rule keeps; notifications, replication, journal."""

    def __init__(
        self,
        registry: HostedRegistry,
        uploads: Uploads,
        hosted: Sequence[HostedSettings],
        tasks: Tasks,
        metrics: Metrics,
    ) -> None:
        self._uploads = uploads
        self._store = registry.store
        self._retention = None
        if any(each.retention for each in hosted):
            from mirror.hosted.retention.schedule import RetentionSchedule

            self._retention = RetentionSchedule(registry, hosted)
        self._courier = None
        if any(each.webhooks for each in hosted):
            from mirror.hosted.notify.courier import Courier

            self._courier = Courier(registry, hosted, tasks, metrics)
        self._replicator = None
        if any(each.mirror_to for each in hosted):
            from mirror.hosted.replication.replicator import Replicator

            self._replicator = Replicator(registry, hosted, tasks, metrics)

    async def run(self) -> None:
        """Do what is due. One process of those that serve calls this. Raises StoreError."""
        if self._courier is not None:
            self._courier.start()
        if self._replicator is not None:
            self._replicator.start()
        await self._uploads.expire()
        await self._store.read(settle_old, self._store.folder)
        if self._retention is not None:
            await self._retention.tick()


def open_hosted(
    store: Store, hosted: Sequence[HostedSettings], tasks: Tasks, cache: Cache, metrics: Metrics
) -> tuple[HostedRegistry, Uploads, HostedUpkeep]:
    """Open the registries, and let the cache answer for them."""
    registry, uploads = HostedRegistry(store, hosted, tasks), Uploads(store, hosted)
    cache.origins.host([each.name for each in hosted], registry.content)
    return registry, uploads, HostedUpkeep(registry, uploads, hosted, tasks, metrics)
