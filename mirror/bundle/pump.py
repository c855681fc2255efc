"""Copying at the speed of the disk, with hashes computed in threads beside: hashing releases the GIL."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

if TYPE_CHECKING:
    from hashlib import _Hash

# Bytes of one buffer, and number of buffers: reading, writing and hashing overlap, and 8 MiB are used in all.
BUFFER = 1024 * 1024
BUFFERS = 8

# Content that is hashed on the spot: a thread would cost more.
SMALL = 128 * 1024


class ByteSource(Protocol):
    """A file to read from."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer as far as possible; 0 at the end."""


class Pump:
    """Ring of buffers and threads that hash. To be closed, or used in a `with` statement."""

    def __init__(self) -> None:
        self._ring = [memoryview(bytearray(BUFFER)) for _ in range(BUFFERS)]
        self._threads: dict[int, ThreadPoolExecutor] = {}

    def copy(
        self, source: ByteSource, size: int, hashers: "list[_Hash]", write: Callable[[memoryview], object]
    ) -> int:
        """Copy up to `size` bytes; return how many there were. All of them are hashed when this returns."""
        running: deque[list[Future[None]]] = deque()
        done = 0
        while done < size:
            if len(running) == BUFFERS:
                _await(running.popleft())
            buffer = self._ring[(done // BUFFER) % BUFFERS]
            count = read_full(source, buffer[: min(BUFFER, size - done)])
            if not count:
                break
            running.append(self._hash(buffer[:count], hashers, size <= SMALL))
            write(buffer[:count])
            done += count
        while running:
            _await(running.popleft())
        return done

    def _hash(self, data: memoryview, hashers: "list[_Hash]", small: bool) -> list[Future[None]]:
        """Hash, each hasher in a thread of its own, so that its buffers stay in order."""
        if not small:
            return [self._thread(place).submit(each.update, data) for place, each in enumerate(hashers)]
        for each in hashers:
            each.update(data)
        return []

    def _thread(self, place: int) -> ThreadPoolExecutor:
        if place not in self._threads:
            self._threads[place] = ThreadPoolExecutor(1, "hash")
        return self._threads[place]

    def close(self) -> None:
        """End the threads."""
        for each in self._threads.values():
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


def _await(futures: list[Future[None]]) -> None:
    for each in futures:
        each.result()
