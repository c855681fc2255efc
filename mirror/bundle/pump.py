"""Copying at the speed of the disk: one thread reads ahead, others hash, and the caller's writes.

Reading, hashing and writing release the GIL, so they overlap on as many cores as there are.
"""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from msgspec import Struct

if TYPE_CHECKING:
    from hashlib import _Hash

# Bytes of one buffer, and number of buffers: reading, writing and hashing overlap, and 8 MiB are used in all.
BUFFER = 1024 * 1024
BUFFERS = 8

# Content that is copied on the spot: a thread would cost more.
SMALL = 128 * 1024


class ByteSource(Protocol):
    """A file to read from."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer as far as possible; 0 at the end."""


class _Filled(Struct):
    """A buffer that was read, and is being hashed."""

    buffer: memoryview
    hashes: list[Future[None]]

    def done(self) -> bool:
        return all(each.done() for each in self.hashes)

    def release(self) -> memoryview:
        """Return the buffer once it is hashed."""
        for each in self.hashes:
            each.result()
        return self.buffer


class Pump:
    """Ring of buffers, and threads that read and hash. To be closed, or used in a `with` statement."""

    def __init__(self) -> None:
        self._ring = [memoryview(bytearray(BUFFER)) for _ in range(BUFFERS)]
        self._threads: list[ThreadPoolExecutor] = []

    def copy(
        self, source: ByteSource, size: int, hashers: "list[_Hash]", write: Callable[[memoryview], object]
    ) -> int:
        """Copy up to `size` bytes; return how many there were. All of them are hashed when this returns.

        `source` is read in another thread, and by nothing else meanwhile; it is not read behind `size`.
        """
        if size <= SMALL:
            return self._copy_small(source, size, hashers, write)
        free = deque(self._ring)
        reads: deque[tuple[memoryview, Future[int]]] = deque()
        filled: deque[_Filled] = deque()
        asked = done = 0
        try:
            while done < size:
                while free and asked < size:
                    buffer = free.popleft()
                    part = buffer[: size - asked]
                    reads.append((buffer, self._thread(0).submit(read_full, source, part)))
                    asked += len(part)
                buffer, read = reads.popleft()
                count, wanted = read.result(), min(BUFFER, size - done)
                filled.append(_Filled(buffer, self._hash(buffer[:count], hashers)))
                write(buffer[:count])
                done += count
                if count < wanted:
                    break
                while filled and (filled[0].done() or not reads):
                    free.append(filled.popleft().release())
        finally:
            self._settle(reads, filled)
        return done

    def _copy_small(
        self, source: ByteSource, size: int, hashers: "list[_Hash]", write: Callable[[memoryview], object]
    ) -> int:
        data = self._ring[0][: read_full(source, self._ring[0][:size])]
        for each in hashers:
            each.update(data)
        if data:
            write(data)
        return len(data)

    def _hash(self, data: memoryview, hashers: "list[_Hash]") -> list[Future[None]]:
        """Hash, each hasher in a thread of its own, so that its buffers stay in order."""
        return [self._thread(place).submit(each.update, data) for place, each in enumerate(hashers, 1)]

    def _thread(self, place: int) -> ThreadPoolExecutor:
        while len(self._threads) <= place:
            self._threads.append(ThreadPoolExecutor(1, "pump"))
        return self._threads[place]

    def _settle(self, reads: deque[tuple[memoryview, Future[int]]], filled: deque[_Filled]) -> None:
        """Wait for what still uses a buffer or the source."""
        for _, read in reads:
            if not read.cancel():
                read.exception()
        for each in filled:
            each.release()

    def close(self) -> None:
        """End the threads."""
        for each in self._threads:
            each.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_full(source: ByteSource, buffer: memoryview) -> int:
    """Fill a buffer; return the number of bytes, smaller than the buffer only at the end of the source."""
    count = 0
    while count < len(buffer):
        found = source.readinto(buffer[count:])
        if not found:
            break
        count += found
    return count


def read_ahead(file: BinaryIO) -> None:
    """Tell the kernel that a file is read from end to end, as cp does; nothing for a pipe or memory."""
    with suppress(OSError, AttributeError):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
