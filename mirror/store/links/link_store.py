"""The links for the event loop: written to the index, or kept in memory while the disk takes no writes."""

from collections.abc import Callable, Mapping
from typing import ParamSpec

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.guard import DiskGuard
from mirror.store.invalidation import Epoch
from mirror.store.memory_cache import MemoryCache
from mirror.store.metadata.index import Index, Link
from mirror.util.lru import LRUCache

P = ParamSpec("P")

# Memory for times at which manifests were first seen, in bytes: some ten thousand.
SEEN_BYTES = 1024 * 1024


class LinkStore:
    """The links of one cache folder, for the event loop."""

    def __init__(self, index: Index, epoch: Epoch, disk: DiskGuard, memory: MemoryCache) -> None:
        self._index = index
        self._epoch = epoch
        self._disk = disk
        self._memory = memory
        self._seen: LRUCache[tuple[Repository, Digest], float] = LRUCache(SEEN_BYTES)

    async def add(self, repository: Repository, digest: Digest, link: Link) -> None:
        """Link a digest to the repository."""
        links = {digest: link}
        await self.write(repository, links, self._index.add_links, repository, links)
        self._memory.forget(repository, (digest,))

    async def read_again(self, repository: Repository, digest: Digest) -> Link | None:
        """Return the link as it is on the disk, where another process may have confirmed it."""
        self._memory.forget(repository, (digest,))
        link = self._memory.unwritten.get(repository, digest)
        return link or await self._disk.read_or(None, lambda: self._index.link(repository, digest))

    async def first_seen(self, repository: Repository, digest: Digest, now: float) -> float:
        """Return when a manifest was first known here; now, from now on, if it was not.

        On a disk that cannot be read it is as good as new.
        """
        seen = self._seen.get((repository, digest))
        if seen is None:
            seen = await self._disk.read_or(now, lambda: self._index.first_seen(repository, digest, now))
            self._seen.put((repository, digest), seen, len(str(repository)))
        return seen

    async def withdraw(self, repository: Repository, digest: Digest) -> None:
        """Drop a link, and all copies of it in memory, in all processes: the upstream has refused it."""
        self._drop_copies(repository, digest)
        await self._disk.best_effort(self._withdraw, repository, digest)
        self._drop_copies(repository, digest)

    def _drop_copies(self, repository: Repository, digest: Digest) -> None:
        self._memory.unwritten.drop(repository, digest)
        self._memory.forget(repository, (digest,))

    def _withdraw(self, repository: Repository, digest: Digest) -> None:
        self._index.drop_link(repository, digest)
        self._epoch.note_removal()

    async def write(
        self,
        repository: Repository,
        links: Mapping[Digest, Link],
        work: Callable[P, object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Write by `best_effort`; unwritten links stay in memory, so that no client has to ask again."""
        written = await self._disk.best_effort(work, *args, **kwargs)
        self._memory.unwritten.put(repository, links, written=written)
