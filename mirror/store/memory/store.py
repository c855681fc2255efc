"""A store in memory for one process: the twin of `store.store.Store`."""

import asyncio
import sys
import tempfile
from pathlib import Path

from mirror.store.executor import DiskExecutor
from mirror.store.memory.blobs import MemoryBlobs
from mirror.store.memory.content import MemoryContent
from mirror.store.memory.metadata import MemoryMetadata
from mirror.store.memory.room import MemoryRoom, MemoryUpkeep
from mirror.store.memory.transfers import MemoryTransfers
from mirror.util.callbacks import ignore


class MemoryStore:
    """Metadata, content, transfers, room and upkeep in memory: `StoreParts`."""

    def __init__(self, limit: int, partials: "tempfile.TemporaryDirectory[str]") -> None:
        self._partials = partials
        self.executor = DiskExecutor(2)
        self.readers = DiskExecutor(2)
        blobs = MemoryBlobs(limit)
        self.metadata = MemoryMetadata(blobs)
        self.room = MemoryRoom(blobs)
        self.content = MemoryContent(blobs, self.room)
        self.upkeep = MemoryUpkeep(blobs, self.room)
        self.transfers = MemoryTransfers(
            blobs, self.content, self.room, Path(self._partials.name), self.executor
        )

    @classmethod
    async def open(cls, limit: int = sys.maxsize) -> "MemoryStore":
        """Return an empty store. `limit`: the quota, in bytes."""

        def make() -> "tempfile.TemporaryDirectory[str]":
            memory = Path("/dev/shm")  # noqa: S108  # a private folder in it
            return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)

        return cls(limit, await asyncio.to_thread(make))

    async def close(self) -> None:
        """Drop everything."""
        await self.executor.run(self._partials.cleanup)
        self.readers.executor.shutdown(wait=False)
        await self.executor.close(ignore)
