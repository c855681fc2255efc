"""Room for what is pushed: the quotas of registries and repositories, and the disk. For the event loop."""

import shutil
from collections.abc import Callable, Mapping, Sequence

from mirror.oci.reference import Repository
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import NoRoom
from mirror.store.executor import DiskExecutor
from mirror.store.hosted.errors import QuotaExceeded
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.pushes import Quotas

# Claims the size that an upload will have, where all others may have the bytes that are left, by registry and
# repository; returns the one without room, and the bytes of the others (`UploadSession.claim`).
Claim = Callable[[int, Mapping[str, int]], tuple[str, int] | None]


class HostedRoom:
    """The room for the hosted repositories of one cache folder."""

    def __init__(self, folder: CacheDirectory, executor: DiskExecutor, index: HostedIndex) -> None:
        self._folder = folder
        self._executor = executor
        self._index = index

    async def held(self, names: Sequence[str]) -> dict[str, int]:
        """Return the bytes that registries hold, by name."""
        return await self._executor.run(lambda: {name: self._index.queries.held(name) for name in names})

    async def check(
        self, repository: Repository, size: int, quotas: Quotas, claim: Claim | None = None
    ) -> None:
        """Raise QuotaExceeded, or NoRoom, if a blob of `size` bytes would not fit.

        With `claim`, the other uploads that are open count as well.
        """
        await self._executor.run(self._check, repository, size, quotas, claim)

    def _check(self, repository: Repository, size: int, quotas: Quotas, claim: Claim | None) -> None:
        left = self._index.quotas.check(repository, size, quotas)
        if left and claim is not None and (refused := claim(size, left)) is not None:
            scope, coming = refused
            allowed = quotas.registry if scope == repository.upstream else quotas.repository
            raise QuotaExceeded(scope, allowed, allowed - size - left[scope], size, coming)
        free = shutil.disk_usage(self._folder.path).free
        possible = free + self._folder.evictor.room().used - self._folder.evictor.quota.min_free
        if size > possible:
            raise NoRoom(f"{size} bytes do not fit on the disk, even if all that may go went")
