"""The scrub: all that is cached is read and proven in the background, slowly, over and over.

And once, at a pace of its own, after the database of the blobs was lost: then the files that have no entry
any more get one.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from mirror.store.blobs.fsck import HARMLESS, Fsck, FsckCursor, FsckStep
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.lock import try_lock
from mirror.util.log import get_logger
from mirror.util.rate_limiter import RateLimiter

log = get_logger(__name__)

# Between two looks whether there is something to do, in seconds.
LOOK_SECONDS = 10.0

# From the beginning of one pass to that of the next, at least, in seconds.
PASS_SECONDS = 24 * 3600.0

# Where it stands is written down this often, in seconds.
SAVE_SECONDS = 60.0

# What a file counts for besides its content, in bytes: a disk seeks for it, and a million small ones are not
# to be read as if they were one file.
FILE_BYTES = 64 * 1024

# At this pace entries are made anew, in bytes per second: a fifth of what a common disk gives.
REBUILD_RATE = 100 * 1024 * 1024


class Scrub:
    """`rate` in bytes per second, 0 for not at all. `passed` is told of each step."""

    def __init__(
        self, folder: CacheDirectory, rate: int, passed: Callable[[FsckStep], object] = bool
    ) -> None:
        self._folder = folder
        self._rate = rate
        self._passed = passed
        self._next = 0.0
        self._executor = DiskExecutor(1)

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                try:
                    await self.run_once()
                except StoreError as error:
                    log.warning("scrub failed", reason=str(error))
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._executor.close(self._folder.close)

    async def run_once(self) -> None:
        """What there is to do now. One process at a time. StoreError."""
        rebuilding = await self._executor.run(lambda: self._folder.recovery.needs_rebuild)
        if not rebuilding and (not self._rate or time.time() < self._next):
            return
        lock = await self._executor.run(try_lock, self._folder.path / "scrub.lock")
        if lock is None:
            return
        try:
            if rebuilding:
                log.info("making the entries of the blobs anew")
                await self._go_through(FsckCursor(files=True), REBUILD_RATE, None)
                await self._executor.run(self._folder.recovery.finish_rebuild)
            else:
                place = self._folder.path / "scrub.cursor"
                cursor = await self._executor.run(lambda: FsckCursor.load(place, quick=False))
                await self._go_through(cursor, self._rate, place)
                self._next = cursor.began + PASS_SECONDS
                await self._executor.run(place.unlink, missing_ok=True)
        finally:
            os.close(lock)

    async def _go_through(self, cursor: FsckCursor, rate: int, place: Path | None) -> None:
        pace, saved = RateLimiter(rate), time.monotonic()
        steps = Fsck(self._folder.path / "blobs", self._folder.blobs, cursor, repair=True).steps()
        while (step := await self._executor.run(next, steps, None)) is not None:
            self._passed(step)
            if step.finding is not None:
                tell = log.info if step.finding.damage in HARMLESS else log.error
                tell(
                    "scrub",
                    what=step.finding.subject,
                    wrong=step.finding.damage.value,
                    done=step.finding.repair,
                )
            await asyncio.sleep(pace.pause(cost(step)))
            if place is not None and time.monotonic() - saved > SAVE_SECONDS:
                await self._executor.run(cursor.save, place)
                saved = time.monotonic()
        log.info("scrub done", blobs=cursor.checked, bytes=cursor.bytes, wrong=cursor.wrong)


def cost(step: FsckStep) -> int:
    """What a step counts for by the rate, in bytes."""
    return step.read + (FILE_BYTES if step.last else 0)
