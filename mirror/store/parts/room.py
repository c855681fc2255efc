"""Room for what is fetched: the quota, and whether the disk takes writes. For the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ParamSpec

from mirror.oci.digest import Digest
from mirror.store.blobs.entries import EvictedBlob
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.guard import DiskGuard
from mirror.store.memory_cache import MemoryCache
from mirror.store.parts.last_use import LastUse
from mirror.store.shares.shares import Shares
from mirror.util.callbacks import ignore
from mirror.util.tasks import run_to_completion

P = ParamSpec("P")


class FolderRoom:
    """The room of one cache folder: a `Room`."""

    def __init__(
        self, folder: CacheDirectory, executor: DiskExecutor, memory: MemoryCache, last_use: LastUse
    ) -> None:
        self.on_evicted: Callable[[Sequence[EvictedBlob]], object] = ignore  # called with what the quota cost
        self.allowance = folder.evictor.allowance
        self.shares = Shares(folder, executor, self._evict)
        self.disk = DiskGuard(executor, folder.recovery, folder.health, self.make_room)
        self._folder = folder
        self._executor = executor
        self._memory = memory
        self._last_use = last_use
        self._evicting = asyncio.Lock()

    @property
    def is_writable(self) -> bool:
        """Return whether fetched content can be kept: not while writing is down."""
        return self.disk.is_writable

    def report_write_failure(self, error: StoreError) -> None:
        """Mark writing as down until `StoreUpkeep.recover` finds that it works."""
        self.disk.report_write_failure(error)

    async def size_limit(self) -> int:
        """Return how many bytes the cache may hold."""
        return await self._executor.run(self._folder.evictor.size_limit)

    async def left(self) -> int:
        """Return how many more bytes the cache may hold; less than 0 if it holds too much."""
        evictor = self._folder.evictor
        return await self._executor.run(lambda: evictor.size_limit() - evictor.room().used)

    async def excess(self, ahead: int = 0, filling: Digest | None = None) -> int:
        """Return the excess as `Evictor.excess`."""
        return await self._executor.run(self._folder.evictor.excess, ahead, filling)

    async def evict(self, keep: Sequence[Digest] = (), need: int = 0, filling: Digest | None = None) -> None:
        """Evict as `Evictor.evict`."""
        await self._evict(self._folder.evictor.evict, keep, need, filling)

    async def evict_excess(
        self, keep: Sequence[Digest] = (), excess: int | None = None, filling: Digest | None = None
    ) -> None:
        """Evict if there is an `excess`, None for a look. A failure is left to the next housekeeping run."""
        with suppress(StoreError):
            if (await self.excess(filling=filling) if excess is None else excess) > 0:
                # To completion, else evicted blobs go unreported at shutdown.
                await run_to_completion(self.evict(keep, filling=filling))

    async def make_room(self, missing: int = 0) -> None:
        """Evict on a full disk as `Evictor.make_room`; failures are ignored."""
        with suppress(StoreError):
            await self._evict(self._folder.evictor.make_room, missing)

    async def _evict(self, work: Callable[P, list[EvictedBlob]], *args: P.args, **kwargs: P.kwargs) -> None:
        async with self._evicting:
            self._memory.close_files()
            with suppress(StoreError):  # a full disk takes no writes, and must get room nevertheless
                await self._last_use.flush()  # so that the eviction knows what is in use
            evicted = await self._executor.run(work, *args, **kwargs)
        if evicted:
            self.on_evicted(evicted)
