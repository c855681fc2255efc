"""The limits of single repositories (`[[cache.rules]]`), for the event loop."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import EvictedBlob
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import NoRoom, StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.shares.repository_share import evict_excess, limits_of, rule_of
from mirror.util.log import get_logger
from mirror.util.tasks import run_to_completion

log = get_logger(__name__)

Evict = Callable[[Callable[[], list[EvictedBlob]]], Coroutine[Any, Any, None]]


class Shares:
    """Checks before a fill and after it. `evict` runs an eviction in a disk thread, and reports it."""

    def __init__(self, folder: CacheDirectory, executor: DiskExecutor, evict: Evict) -> None:
        self._folder = folder
        self._executor = executor
        self._evict = evict

    async def check(self, repository: Repository, digest: Digest, size: int | None) -> None:
        """Raise NoRoom if a rule does not let the repository keep a blob of `size` bytes, None if unknown."""
        if size is None or rule_of(self._folder, repository) is None:
            return
        limits = await self._executor.run(limits_of, self._folder, repository)
        if (refusal := limits.refusal(size)) is not None:
            raise NoRoom(f"{digest} {refusal}")

    async def evict_excess(self, repository: Repository, digest: Digest, coming: int = 0) -> None:
        """Evict the repository's own blobs beyond its share.

        `digest` was added, or `coming` bytes of it will come. A failure is left to the next blob.
        """
        rule = rule_of(self._folder, repository)
        if rule is None or rule.max_share is None:
            return

        def work() -> list[EvictedBlob]:
            evicted = evict_excess(self._folder, repository, coming, digest)
            if evicted:
                log.info(
                    "repository beyond its share of the cache, its own blobs evicted",
                    repository=str(repository),
                    rule=rule.repositories,
                    blobs=len(evicted),
                    bytes=sum(each.size for each in evicted),
                )
            return evicted

        with suppress(StoreError):
            await run_to_completion(self._evict(work))
