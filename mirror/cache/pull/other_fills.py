"""Fills of other processes on the cache folder, to which pulls of whole images give way.

In one process clients go first by the turns of fills. A command beside a running mirror is another process,
with connections of its own, and shares the line to the upstream. What the mirror fills shows in the folder:
the data of a partial is written again and again. While one of another process grows, pulls fetch one blob at
a time in all, instead of several of several images.
"""

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.store.store import Store

# A partial that was not written for this many seconds waits for its upstream, or was interrupted.
GROWING_SECONDS = 2.0

# Interval between two looks at the folder, in seconds.
LOOK_SECONDS = 1.0


class OtherFills:
    """The fills of other processes. `is_own`: whether this process fills a blob."""

    def __init__(self, store: Store, is_own: Callable[[Digest], bool]) -> None:
        self._store = store
        self._is_own = is_own
        self._single = asyncio.Lock()
        self._look = asyncio.Lock()
        self._looked = -math.inf
        self._busy = False

    @asynccontextmanager
    async def give_way(self) -> AsyncIterator[None]:
        """Hold a turn for one blob: the only one, as long as another process fills."""
        while await self._is_busy():
            if not self._single.locked():
                async with self._single:
                    yield
                return
            await asyncio.sleep(LOOK_SECONDS)
        yield

    async def _is_busy(self) -> bool:
        async with self._look:
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                folder, since = self._store.folder.partials, time.time() - GROWING_SECONDS
                growing = await self._store.executor.run(growing_partials, folder, since)
                self._busy = not all(map(self._is_own, growing))
                self._looked = time.monotonic()
            return self._busy


def growing_partials(folder: Path, since: float) -> list[Digest]:
    """Return the blobs whose partials were written since a moment (seconds since the epoch). Blocks."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            stem, dot, kind = entry.name.rpartition(".")
            if (dot, kind) != (".", "data"):
                continue
            with suppress(OSError, RegistryError):  # adopted since it was listed, or no partial
                if entry.stat(follow_symlinks=False).st_mtime >= since:
                    found.append(Digest.parse(stem.replace("-", ":", 1)))
    return found
