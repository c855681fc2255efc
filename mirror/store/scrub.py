"""The scrub: reads and verifies all cached files in the background, slowly, over and over.

After the database of the blobs was lost, the scrub runs once at a rate of its own, and files without an entry
get one.
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
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.rate_limiter import RateLimiter

log = get_logger(__name__)

# Interval, in seconds, between checks whether a pass is due.
POLL_SECONDS = 10.0

# Least time, in seconds, from the start of one pass to the start of the next.
PASS_SECONDS = 24 * 3600.0

# Interval, in seconds, between writes of the cursor.
SAVE_SECONDS = 60.0

# Bytes that a file counts for besides its content: a disk seeks for each file, so that a million small ones
# cost more than one of their size.
FILE_BYTES = 64 * 1024

# Rate at which lost entries are recreated, in bytes per second: a fifth of what a common disk reads.
REBUILD_RATE = 100 * 1024 * 1024


class Scrub:
    """The scrub of one cache folder."""

    def __init__(
        self, folder: CacheDirectory, rate: int, on_step: Callable[[FsckStep], object] = ignore
    ) -> None:
        """Prepare; `rate` in bytes per second, 0 for no scrub; `on_step` is called with each step."""
        self._folder = folder
        self._rate = rate
        self._on_step = on_step
        self._next = 0.0
        self._executor = DiskExecutor(1)

    async def run(self) -> None:
        """Scrub until cancelled."""
        try:
            while True:
                try:
                    await self.run_once()
                except StoreError as error:
                    log.warning("scrub failed", reason=str(error))
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await self._executor.close(self._folder.close)

    async def run_once(self) -> None:
        """Do the pass that is due, if any, unless another process does it. StoreError."""
        rebuilding = await self._executor.run(lambda: self._folder.recovery.needs_rebuild)
        if not rebuilding and (not self._rate or time.time() < self._next):
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
                cursor_path = self._folder.path / "scrub.cursor"
                cursor = await self._executor.run(lambda: FsckCursor.load(cursor_path, quick=False))
                await self._run_pass(cursor, self._rate, cursor_path)
                self._next = cursor.began + PASS_SECONDS
                await self._executor.run(cursor_path.unlink, missing_ok=True)
        finally:
            os.close(lock)

    async def _run_pass(self, cursor: FsckCursor, rate: int, cursor_path: Path | None) -> None:
        limiter, saved = RateLimiter(rate), time.monotonic()
        steps = Fsck(self._folder.path / "blobs", self._folder.blobs, cursor, repair=True).steps()
        while (step := await self._executor.run(next, steps, None)) is not None:
            self._on_step(step)
            if (found := step.finding) is not None:
                report = log.info if found.damage in HARMLESS else log.error
                report("scrub", what=found.subject, wrong=found.damage.value, done=found.repair)
            await asyncio.sleep(limiter.pause(rate_cost(step)))
            if cursor_path is not None and time.monotonic() - saved > SAVE_SECONDS:
                await self._executor.run(cursor.save, cursor_path)
                saved = time.monotonic()
        log.info("scrub done", blobs=cursor.checked, bytes=cursor.bytes, wrong=cursor.wrong)


def rate_cost(step: FsckStep) -> int:
    """Return the bytes that a step counts for by the rate."""
    return step.read + (FILE_BYTES if step.last else 0)
