"""The last use of blobs, and those that are being read: in memory, until it is written to their entries."""

import time
from collections import Counter
from collections.abc import Callable

from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from mirror.store.executor import DiskExecutor
from mirror.store.memory_cache import MemoryCache


class LastUse:
    """The blobs of one cache folder that were used since the last `flush`."""

    def __init__(self, folder: CacheDirectory, executor: DiskExecutor, memory: MemoryCache) -> None:
        self.used: dict[Digest, float] = {}
        self.reading: Counter[Digest] = Counter()
        self._folder = folder
        self._executor = executor
        self._memory = memory

    def touch(self, digest: Digest) -> None:
        """Note that a blob is used now; `flush` writes that down later."""
        self.used[digest] = time.time()

    def begin_reading(self, digest: Digest) -> Callable[[], None]:
        """Mark a blob as in use until the returned function is called, hours later perhaps."""
        self.reading[digest] += 1

        def end() -> None:
            self.reading[digest] -= 1
            if not self.reading[digest]:
                del self.reading[digest]

        return end

    async def flush(self) -> None:
        """Write the last-use times gathered since the last call; a blob that is being read is used now.

        Content that was served from memory and has been evicted is stored again.
        """
        used, self.used = self.used, {}
        used.update(dict.fromkeys(self.reading, time.time()))
        if not used or not (missing := await self._executor.run(self._folder.blobs.table.touch, used)):
            return
        if missing := [each for each in missing if each not in self.reading]:
            await self._executor.run(self._folder.writer.restore, self._memory.copies(missing), missing)
