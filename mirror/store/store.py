"""The store of one cache folder for the event loop, in the parts that its callers need (`store.parts`).

Each call takes one hop into a disk thread, or none: small content in use is answered from memory.
`guard.py` has the table of what each method does on a failing disk, `eviction.py` the table of who evicts
what.
"""

from contextlib import suppress
from pathlib import Path

from mirror.config.schema import CacheSettings
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import StoreError, reason_of
from mirror.store.executor import DiskExecutor
from mirror.store.memory_cache import MemoryCache
from mirror.store.parts.content import FolderContent
from mirror.store.parts.last_use import LastUse
from mirror.store.parts.metadata import FolderMetadata
from mirror.store.parts.room import FolderRoom
from mirror.store.parts.transfers import FolderTransfers
from mirror.store.parts.upkeep import FolderUpkeep

# Threads that read blobs ahead of their senders: as many reads as a disk serves well at a time.
READERS = 4


class Store:
    """Metadata, content, transfers, room and upkeep of one cache folder."""

    def __init__(self, folder: CacheDirectory, memory: int) -> None:
        """`memory`: bytes for small content in use."""
        self.folder = folder
        self.health = folder.health
        self.executor = DiskExecutor(initialize=folder.open_connections)
        # Apart: a crowd that reads old blobs from a slow disk must not delay look-ups and fills.
        self.readers = DiskExecutor(READERS)
        self._memory = MemoryCache(memory, folder.epoch.removals)
        self._last_use = LastUse(folder, self.executor, self._memory)
        self.room = FolderRoom(folder, self.executor, self._memory, self._last_use)
        self.metadata = FolderMetadata(folder, self.executor, self.room.disk, self._memory)
        links = self.metadata.links
        self.content = FolderContent(folder, self.executor, self._memory, links, self.room, self._last_use)
        self.transfers = FolderTransfers(folder, self.executor, self._memory, self.room)
        self.upkeep = FolderUpkeep(folder, self.executor, self.room, self._last_use)

    @classmethod
    async def open(cls, path: Path, settings: CacheSettings | None = None) -> "Store":
        """Open a folder; `settings` give quota and memory. StoreError names the folder and the reason."""
        opener = DiskExecutor(1)
        try:
            folder = await opener.run(CacheDirectory, path, settings)
            await opener.run(folder.recovery.drop_connections)
        except StoreError as error:
            reason = reason_of(error.__cause__ or error)
            raise StoreError(f"cannot use the cache folder {path}: {reason}") from error
        finally:
            opener.executor.shutdown(wait=False)
        return cls(folder, 0 if settings is None else settings.memory)

    async def close(self) -> None:
        """Write what is in memory only, and close all connections."""
        with suppress(StoreError):
            await self._last_use.flush()
        await self.executor.run(self.folder.housekeeper.release)
        self._memory.close_files()
        self.readers.executor.shutdown(wait=False)
        await self.executor.close(self.folder.close)
