"""Lists of images that are fetched before a client asks: on a schedule, from the pages, by `warm`."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from mirror.cache.cache import Cache
from mirror.config.schema import Config
from mirror.oci.image_pattern import Pin
from mirror.store.errors import StoreError
from mirror.store.store import Store
from mirror.upstream.errors import UpstreamError
from mirror.util.callbacks import ignore
from mirror.util.tasks import Tasks

if TYPE_CHECKING:
    from mirror.cache.pull.budget import Pause
    from mirror.manage.warm.plan import WarmPlan
    from mirror.manage.warm.run import WarmRun
    from mirror.manage.warm.scheduler import WarmScheduler


class WarmLists:
    """Runs over lists of images. Nothing that they need is imported before the first one."""

    def __init__(self, store: Store, cache: Cache) -> None:
        self._store = store
        self._cache = cache
        self._scheduler: WarmScheduler | None = None

    def schedule(self, config: Config, tasks: Tasks, clock: Callable[[], float]) -> None:
        """Fetch the lists of the configuration at their times, if there are any."""
        if not config.warm:
            return
        from mirror.cache.pull.budget import log_pause
        from mirror.manage.warm.scheduled import fetch_list
        from mirror.manage.warm.scheduler import WarmScheduler

        begin = partial(self.run, on_pause=log_pause)
        fetch = partial(fetch_list, names=config.names().mirrored, begin=begin, pin=self.pin)
        self._scheduler = WarmScheduler(config.warm, self._store.folder.path, fetch, tasks, clock)

    async def tick(self) -> None:
        """Begin the scheduled fetch that is due, if this worker runs housekeeping."""
        if self._scheduler is not None:
            elected = await self._store.executor.run(self._store.folder.housekeeper.claim)
            await self._scheduler.tick(elected=elected)

    def status(self) -> list[dict[str, Any]]:
        """Return the state of the lists that are fetched on a schedule, for /readyz."""
        return [] if self._scheduler is None else self._scheduler.status()

    def run(self, plan: "WarmPlan", on_pause: "Callable[[Pause], object]" = ignore) -> "WarmRun":
        """Return a run over a list of images. `on_pause`: called when it waits for a rate limit."""
        from mirror.cache.pull.walk import Wanted
        from mirror.manage.warm.run import WarmRun

        budget = self._cache.pulls.budget(plan.leave, on_pause)
        source = self._cache.pulls.source(Wanted(plan.platforms, plan.referrers, budget))
        return WarmRun(source, (UpstreamError, StoreError))

    async def pin(self, pins: Iterable[Pin]) -> None:
        """Pin images. Raises PinTooLarge or StoreError."""
        for each in pins:
            await self._store.executor.run(self._store.folder.pinning.pin, each)
