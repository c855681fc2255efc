"""Housekeeping of a cache folder for the event loop: recovery, sweeping, pins, figures."""

import time
from collections.abc import Sequence

from mirror.oci.image_pattern import Pin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.executor import DiskExecutor
from mirror.store.parts.last_use import LastUse
from mirror.store.parts.room import FolderRoom
from mirror.util.log import get_logger

log = get_logger(__name__)

# Interval, in seconds, between searches for partials that no fill resumes.
SWEEP_SECONDS = 3600.0


class FolderUpkeep:
    """The upkeep of one cache folder: a `StoreUpkeep`."""

    def __init__(
        self, folder: CacheDirectory, executor: DiskExecutor, room: FolderRoom, last_use: LastUse
    ) -> None:
        self._folder = folder
        self._executor = executor
        self._room = room
        self._last_use = last_use
        self._pins: Sequence[Pin] = ()  # of the configuration
        self._pins_written = True
        self._swept = -SWEEP_SECONDS

    async def recover(self) -> None:
        """Test what is down, and recreate what was removed from the folder."""
        await self._room.disk.recover()
        if (self._folder.recreated or not self._pins_written) and self._room.is_writable:
            self._folder.recreated = False
            await self.configure_pins(self._pins)

    async def warm_up(self) -> None:
        """Open each thread's database connections before a request waits for them."""
        await self._executor.warm_up()

    async def claim_housekeeping(self) -> bool:
        """Return whether this process is the housekeeper: one of all processes on this folder. StoreError."""
        return await self._executor.run(self._folder.housekeeper.claim)

    async def run_housekeeping(self) -> None:
        """Recover, and write last-use times; one process of all on the folder evicts and sweeps too."""
        await self.recover()
        if not await self.claim_housekeeping():
            await (self._room.evict() if self._room.allowance.earned else self.flush_last_use())
            return
        if time.monotonic() - self._swept >= SWEEP_SECONDS:
            self._swept = time.monotonic()
            await self.remove_old_partials()
        await self._room.evict()

    async def remove_old_partials(self) -> None:
        """Remove fills that were interrupted, by a crash for instance, and not resumed."""
        if names := await self._executor.run(self._folder.fills.remove_old_partials):
            log.info("removed partials that no fill resumed", files=len(names))

    async def configure_pins(self, pins: Sequence[Pin]) -> None:
        """Replace the pins of the configuration by `pins`; at a later `recover` if the disk fails now."""
        self._pins = pins
        self._pins_written = await self._room.disk.best_effort(self._folder.pinning.configure_pins, pins)

    async def flush_last_use(self) -> None:
        """Write the last-use times gathered since the last call."""
        await self._last_use.flush()

    async def stats(self) -> tuple[int, int]:
        """Return bytes and number of blobs."""
        return await self._executor.run(self._folder.blobs.stats)

    async def check(self) -> list[str]:
        """Return the inconsistencies of the blob store as sentences."""
        return await self._executor.run(self._folder.blobs.check)
