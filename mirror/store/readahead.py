"""Read-ahead: the bytes that are sent next are in the page cache before the event loop touches them.

`sendfile` of what is not there waits for the disk in the kernel, and with it everybody whom the loop
serves. So each stretch is looked at first, which costs a hundredth of sending it, and what is missing is
read by a disk thread while the stretch before it is being sent.
"""

import asyncio
import os
from collections.abc import Callable
from typing import BinaryIO

from mirror.store.errors import translated
from mirror.store.executor import DiskExecutor

# What is looked at, and then sent, at a time.
STRETCH = 2 * 1024 * 1024

# How far apart the looks are: what Linux reads, and so forgets, together (read_ahead_kb of most disks).
SAMPLE = 128 * 1024

# One read of a disk thread, in bytes: some milliseconds on a slow disk before the first can be sent.
READ = 1024 * 1024


class ReadAhead:
    """One reader's way through a file, up to `stop`. The file stays the caller's."""

    def __init__(
        self, executor: DiskExecutor, file: BinaryIO, stop: int, halted: Callable[[], bool] = bool
    ) -> None:
        """`halted`: whether nothing more is to be sent."""
        self.stopped = halted
        self.file = file
        self.stop = stop
        self._executor = executor
        self._reached = 0
        self._reading: asyncio.Future[int] | None = None

    def ready_until(self, offset: int) -> int:
        """Where the bytes end that can be sent from `offset` on now; `offset` while they are being read.

        Begins to read what follows. Raises StoreError when the disk does not give it.
        """
        if self.stopped():
            return offset
        if offset < self._reached:
            return self._reached
        stop = min(offset + STRETCH, self.stop)
        if self._reading is not None:
            if not self._reading.done():
                return offset
            offset, self._reading = self._reading.result(), None
        self._reached = resident(self.file, offset, stop)
        if self._reached < stop:
            self._reading = self._read(self._reached)
        return self._reached

    async def wait(self, offset: int) -> None:
        """Until `look` has something at `offset`."""
        if self.ready_until(offset) == offset and self._reading is not None:
            await asyncio.shield(self._reading)

    def _read(self, offset: int) -> "asyncio.Future[int]":
        # A descriptor of the thread's own: the reader may leave, and close its file, in the meantime.
        with translated("read ahead"):
            descriptor = os.dup(self.file.fileno())
        reading = self._executor.start(_read_through, descriptor, offset, min(offset + READ, self.stop))
        reading.add_done_callback(_seen)
        return reading


def resident(file: BinaryIO, offset: int, stop: int) -> int:
    """How far the bytes from `offset` up to `stop` are in the page cache, as samples show.

    Up to the last sample that is there: what lies between it and the first that is not cannot be told. A file
    system that does not say (EOPNOTSUPP: tmpfs, NFS) counts as one where nothing is.
    """
    descriptor, byte, at = file.fileno(), [bytearray(1)], offset
    try:
        while at < stop:
            os.preadv(descriptor, byte, at, os.RWF_NOWAIT)
            offset = at
            at += SAMPLE
        os.preadv(descriptor, byte, stop - 1, os.RWF_NOWAIT)
    except OSError:  # EAGAIN, or what the reading thread will meet too
        return offset
    return stop


def _read_through(descriptor: int, offset: int, stop: int) -> int:
    """Bring the bytes into the page cache, and wait until they are; returns `stop`.

    By `sendfile` to nowhere: it moves references to pages, so nothing is copied and no buffer is needed.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while offset < stop and (read := os.sendfile(nowhere, descriptor, offset, stop - offset)):
            offset += read
    finally:
        os.close(nowhere)
        os.close(descriptor)
    return stop  # a file that ends before it is the sender's to notice


def _seen(reading: "asyncio.Future[int]") -> None:
    """What went wrong is told to whoever looks next; that nobody does any more is no error."""
    if not reading.cancelled():
        reading.exception()
