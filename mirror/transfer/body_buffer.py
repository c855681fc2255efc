"""The buffer between network and disk: bytes that arrive during one write become the next write.

So writes are large where the network is fast, and never wait where the network is slow or stalls. Only the
first write is small, and nothing is collected meanwhile: a client waits for these bytes, and a fast network
would keep this process from sending them. Large bodies are read straight from the socket, in the same way
(`upstream.http.direct_read`); `BodyBuffer` is for all others.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mirror.oci.ranges import Span
from mirror.upstream.body import BlobBody
from mirror.upstream.errors import UpstreamError
from mirror.upstream.http.transport import PartReader
from mirror.util.tasks import Tasks, stop_task
from mirror.util.tracebacks import without_frames

# The most bytes per connection that the network may be ahead of the disk.
AHEAD = 4 * 1024 * 1024


class BodyBuffer:
    """The parts of one body; `collect` runs in a task of its own, and `next` returns the collected parts."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._parts: list[bytes] = []
        self._length = 0
        self._error: UpstreamError | None = None
        self._begun = False
        self._ended = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    async def collect(self) -> None:
        """Collect parts until the body ends or fails."""
        try:
            async for chunk in self._chunks:
                self._parts.append(chunk)
                self._length += len(chunk)
                self._arrived.set()
                if self._length >= AHEAD or not self._begun:
                    self._room.clear()
                    await self._room.wait()
        except UpstreamError as error:
            self._error = without_frames(error)
        finally:
            self._ended = True
            self._arrived.set()

    async def next(self) -> list[bytes]:
        """Return the parts that have arrived, as received; an empty list at the end.

        Raises UpstreamError, after all parts before it.
        """
        if self._begun:
            self._room.set()
        await self._arrived.wait()
        count = len(self._parts) if self._begun else 1
        parts, self._parts = self._parts[:count], self._parts[count:]
        self._length = sum(len(part) for part in self._parts)
        if self._begun:
            self._room.set()
        self._begun = True
        if not self._ended and not self._parts:
            self._arrived.clear()
        if not parts and self._error is not None:
            raise self._error
        return parts


@asynccontextmanager
async def open_parts(body: BlobBody, tasks: Tasks) -> AsyncIterator[PartReader]:
    """Open a body for reading in parts."""
    direct = body.direct_reader()
    if direct is not None:
        yield direct
        return
    buffer = BodyBuffer(body.chunks())
    collecting = tasks.spawn(buffer.collect(), name="collect")
    try:
        yield buffer.next
    finally:
        await stop_task(collecting)


async def skipping(chunks: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    """Yield `chunks` without their first `count` bytes."""
    async for chunk in chunks:
        if count >= len(chunk):
            count -= len(chunk)
            continue
        yield chunk[count:]
        count = 0


def section(parts: Sequence[bytes | memoryview], offset: int, span: Span) -> list[bytes | memoryview]:
    """Return the bytes of `span` from `parts`, of which the first begins at `offset`."""
    found: list[bytes | memoryview] = []
    for part in parts:
        piece = part[max(span.start - offset, 0) : max(span.stop - offset, 0)]
        if piece:
            found.append(piece)
        offset += len(part)
    return found


def clipped(parts: Sequence[bytes | memoryview], length: int) -> list[bytes | memoryview]:
    """Return the first `length` bytes of `parts`."""
    kept: list[bytes | memoryview] = []
    for part in parts:
        if length <= 0:
            break
        kept.append(part[:length])
        length -= len(part)
    return kept
