"""Fills of other processes on the cache folder, to which pulls of whole images give way.

In one process clients go first by the turns of fills. A command beside a running mirror is another process,
with connections of its own, and shares the line to the upstream. What the mirror fills shows in the folder:
the data of a partial is written again and again. While one of another process grows, pulls fetch one blob at
a time in all, instead of several of several images.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mirror.oci.digest import Digest
from mirror.store.parts.interfaces import Transfers

# A partial that was not written for this many seconds waits for its upstream, or was interrupted.
GROWING_SECONDS = 2.0

# Interval between two looks at the folder, in seconds.
LOOK_SECONDS = 1.0


class OtherFills:
    """The fills of other processes. `is_own`: whether this process fills a blob."""

    def __init__(self, transfers: Transfers, is_own: Callable[[Digest], bool]) -> None:
        self._transfers = transfers
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
                growing = await self._transfers.growing_since(time.time() - GROWING_SECONDS)
                self._busy = not all(map(self._is_own, growing))
                self._looked = time.monotonic()
            return self._busy
