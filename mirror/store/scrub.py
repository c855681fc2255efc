"""The scrub: reads and verifies all cached files in the background, slowly, once a week.

`scrub.cursor` says how far a pass has come, so that the next start goes on there, or when it ended. After the
database of the blobs was lost, the scrub runs once at a rate of its own, and files without an entry get one.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from mirror.store.blobs.fsck import CURSOR, HARMLESS, Fsck, FsckCursor, FsckStep
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.lock import try_lock
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.rate_limiter import RateLimiter

log = get_logger(__name__)

# Interval, in seconds, between checks whether a pass is due.
POLL_SECONDS = 10.0

# Least time, in seconds, from the start of one pass to the start of the next.
PASS_SECONDS = 7 * 24 * 3600.0

# Time, in seconds, after a start before which no pass goes on: then clients come back, and the disk is cold.
START_SECONDS = 120.0

# On a busy machine, a byte counts for as many.
BUSY_FACTOR = 10

# Time, in seconds, after a failure of the disk until the scrub goes on.
RETRY_SECONDS = 600.0

# Interval, in seconds, between writes of the cursor.
SAVE_SECONDS = 60.0

# Bytes that a file counts for besides its content: a disk seeks for each file, so that a million small ones
# cost more than one of their size.
FILE_BYTES = 64 * 1024

# Rate at which lost entries are recreated, in bytes per second: a fifth of what a common disk reads.
REBUILD_RATE = 100 * 1024 * 1024


def machine_is_busy() -> bool:
    """Return whether more threads want a processor, or wait for a disk, than there are processors."""
    return os.getloadavg()[0] > len(os.sched_getaffinity(0))


class Scrub:
    """The scrub of one cache folder."""

    def __init__(
        self,
        folder: CacheDirectory,
        rate: int,
        on_step: Callable[[FsckStep], object] = ignore,
        busy: Callable[[], bool] = machine_is_busy,
    ) -> None:
        """Prepare; `rate` in bytes per second, 0 for no scrub; `on_step` is called with each step."""
        self._folder = folder
        self._rate = rate
        self._on_step = on_step
        self._busy = busy
        self._next = 0.0
        self._executor = DiskExecutor(1)

    async def run(self) -> None:
        """Scrub until cancelled."""
        started = time.monotonic()
        try:
            while True:
                try:
                    await self.run_once(rebuild_only=time.monotonic() - started < START_SECONDS)
                except StoreError as error:
                    self._next = time.time() + RETRY_SECONDS
                    if not self._folder.health.faults():  # a fault has been logged, once, with what to do
                        log.warning("scrub failed", reason=str(error))
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await self._executor.close(self._folder.close)

    async def run_once(self, *, rebuild_only: bool = False) -> None:
        """Do the pass that is due, if any, unless another process does it. StoreError."""
        rebuilding = await self._executor.run(lambda: self._folder.recovery.needs_rebuild)
        if not rebuilding and (rebuild_only or not self._rate or time.time() < self._next):
            return
        lock = await self._executor.run(try_lock, self._folder.path / "scrub.lock")
        if lock is None:
            return
        try:
            if rebuilding:
                log.info("recreating the entries of the blobs")
                await self._run_pass(FsckCursor(files=True), REBUILD_RATE, None)
                await self._executor.run(self._folder.recovery.finish_rebuild)
            else:
                await self._scrub()
        finally:
            os.close(lock)

    async def _scrub(self) -> None:
        """Do a pass, or the rest of one, if the last one began long enough ago."""
        path = self._folder.path / CURSOR
        cursor = await self._executor.run(lambda: FsckCursor.load(path, quick=False))
        if cursor.ended:
            # Another process has done the pass. After a clock was set back, the next one is due.
            self._next = cursor.began + PASS_SECONDS
            if cursor.began <= time.time() < self._next:
                return
            cursor = FsckCursor()
        cursor.total = cursor.total or await self._executor.run(self._folder.blobs.table.size)
        if await self._run_pass(cursor, self._rate, path):
            cursor.ended = time.time()
            self._next = cursor.began + PASS_SECONDS
        await self._executor.run(cursor.save, path)

    async def _run_pass(self, cursor: FsckCursor, rate: int, cursor_path: Path | None) -> bool:
        """Take all steps; return False if lost entries must be recreated first. Without a path: do that."""
        limiter, saved = RateLimiter(rate), time.monotonic()
        steps = Fsck(self._folder.path / "blobs", self._folder.blobs, cursor, repair=True).steps()
        while (step := await self._executor.run(next, steps, None)) is not None:
            self._on_step(step)
            if (found := step.finding) is not None:
                report = log.info if found.damage in HARMLESS else log.error
                report("scrub", what=found.subject, wrong=found.damage.value, done=found.repair)
            slower = BUSY_FACTOR if cursor_path is not None and self._busy() else 1
            await asyncio.sleep(limiter.pause(rate_cost(step) * slower))
            if cursor_path is not None and time.monotonic() - saved > SAVE_SECONDS:
                if await self._executor.run(lambda: self._folder.recovery.needs_rebuild):
                    return False
                await self._executor.run(cursor.save, cursor_path)
                saved = time.monotonic()
        log.info("scrub done", blobs=cursor.checked, bytes=cursor.bytes, wrong=cursor.wrong)
        return True


def rate_cost(step: FsckStep) -> int:
    """Return the bytes that a step counts for by the rate."""
    return step.read + (FILE_BYTES if step.last else 0)
