"""Read-ahead: loads the bytes that are sent next into the page cache, before the event loop touches them.

A `sendfile` of bytes that are not in the page cache waits for the disk in the kernel, and with it all clients
of the event loop. So each stretch is sampled first, which costs a hundredth of sending it, and a disk thread
reads what is missing while the stretch before is being sent.
"""

import asyncio
import os
from collections.abc import Callable
from typing import BinaryIO

from mirror.store.blobs.page_cache import resident
from mirror.store.errors import translated
from mirror.store.executor import DiskExecutor

# Bytes that are sampled, and then sent, at a time.
STRETCH_BYTES = 2 * 1024 * 1024

# One read of a disk thread, in bytes: a slow disk takes some milliseconds for it.
READ_BYTES = 1024 * 1024


class ReadAhead:
    """One reader's progress through a file, up to `stop`. The file belongs to the caller."""

    def __init__(
        self, executor: DiskExecutor, file: BinaryIO, stop: int, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Prepare; `stopped` returns whether nothing more must be sent."""
        self.stopped = stopped
        self.file = file
        self.stop = stop
        self._executor = executor
        self._reached = 0
        self._reading: asyncio.Future[int] | None = None

    def ready_until(self, offset: int) -> int:
        """Return where the bytes end that can be sent from `offset` on now.

        That is `offset` while they are being read. Starts to read what follows. Raises StoreError if the disk
        fails.
        """
        if self.stopped():
            return offset
        if offset < self._reached:
            return self._reached
        stop = min(offset + STRETCH_BYTES, self.stop)
        if self._reading is not None:
            if not self._reading.done():
                return offset
            offset, self._reading = self._reading.result(), None
        self._reached = resident(self.file, offset, stop)
        if self._reached < stop:
            self._reading = self._read(self._reached)
        return self._reached

    async def wait(self, offset: int) -> None:
        """Wait until `ready_until` has bytes at `offset`."""
        if self.ready_until(offset) == offset and self._reading is not None:
            await asyncio.shield(self._reading)

    def _read(self, offset: int) -> "asyncio.Future[int]":
        # A descriptor of the thread's own: the reader may leave, and close its file, meanwhile.
        with translated("read ahead"):
            descriptor = os.dup(self.file.fileno())
        reading = self._executor.start(_read_through, descriptor, offset, min(offset + READ_BYTES, self.stop))
        reading.add_done_callback(_mark_retrieved)
        return reading


def _read_through(descriptor: int, offset: int, stop: int) -> int:
    """Load the bytes into the page cache and wait for them; return `stop`.

    Done by `sendfile` to /dev/null, which moves references to pages: nothing is copied and no buffer is
    needed.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while offset < stop and (read := os.sendfile(nowhere, descriptor, offset, stop - offset)):
            offset += read
    finally:
        os.close(nowhere)
        os.close(descriptor)
    return stop  # the sender notices a file that ends earlier


def _mark_retrieved(reading: "asyncio.Future[int]") -> None:
    """Retrieve an error, which the next look raises: asyncio would log it if no look followed."""
    if not reading.cancelled():
        reading.exception()
