"""Tags, links, referrers and repositories in the index of a cache folder, for the event loop."""

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.executor import DiskExecutor
from mirror.store.guard import DiskGuard
from mirror.store.links.link_store import LinkStore
from mirror.store.links.visibility_store import VisibilityStore
from mirror.store.memory_cache import MemoryCache
from mirror.store.metadata.index import ReferrersEntry, TagEntry
from mirror.store.metadata.listings import gone_tags


class FolderMetadata:
    """The index of one cache folder: a `Metadata`."""

    def __init__(
        self, folder: CacheDirectory, executor: DiskExecutor, disk: DiskGuard, memory: MemoryCache
    ) -> None:
        self.links = LinkStore(folder.index, folder.epoch, disk, memory)
        self.visibility = VisibilityStore(folder.index, folder.epoch, disk)
        self._folder = folder
        self._executor = executor
        self._disk = disk
        self._memory = memory

    async def tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return the tag entry."""
        known = self._memory.tag(repository, tag)
        if known is not None:
            return known
        version = self._memory.version
        entry = await self._disk.read_or(None, lambda: self._folder.index.tag(repository, tag))
        if entry is not None:
            self._memory.put_tag(repository, tag, entry, version)
        return entry

    async def read_tag_again(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return the entry as it is on the disk, where another process may have changed it. StoreError."""
        return await self._executor.run(self._folder.index.tag, repository, tag)

    async def put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Write a tag entry."""
        self._memory.forget_tag(repository, tag)
        await self._disk.best_effort(self._folder.writer.put_tag, repository, tag, entry)
        self._memory.forget_tag(repository, tag)
        self._memory.put_tag(repository, tag, entry, self._memory.version)

    async def drop_tag(self, repository: Repository, tag: Tag) -> None:
        """Remove a tag entry."""
        self._memory.forget_tag(repository, tag)
        await self._disk.best_effort(self._folder.writer.drop_tag, repository, tag)
        self._memory.forget_tag(repository, tag)

    async def known_tags(self, repository: Repository, after: str, limit: int) -> list[str]:
        """Return up to `limit` tags that have an entry and sort after `after`, in order."""
        none: list[str] = []
        return await self._disk.read_or(none, lambda: self._folder.index.tags(repository, after, limit))

    async def gone_tags(self, repository: Repository) -> list[tuple[str, TagEntry]]:
        """Return the tags, in order, that are kept although they are gone upstream. StoreError."""

        def find() -> list[tuple[str, TagEntry]]:
            found, has = gone_tags(self._folder.index, repository), self._folder.reader.has
            return [(name, entry) for name, entry in found if has(Digest.parse(entry.digest))]

        return await self._executor.run(find)

    async def referrers(self, repository: Repository, digest: Digest) -> ReferrersEntry | None:
        """Return the referrers list of a digest."""
        return await self._disk.read_or(None, lambda: self._folder.index.referrers(repository, digest))

    async def put_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None:
        """Write the referrers list of a digest."""
        await self._disk.best_effort(self._folder.writer.put_referrers, repository, digest, entry)

    async def repositories(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return up to `limit` names, in order, that start with `prefix`, after `after`. StoreError."""
        return await self._executor.run(self._folder.index.repositories, prefix, after, limit)
