"""Between the network and the disk: what arrives while one piece is written becomes the next piece.

So pieces are large where the network is fast, and never wait where it is slow or stalls. Only the first one
is small, and nothing is collected while it is written: a client waits for it, and a fast network would keep
this process from getting it there. Large bodies are taken straight from the socket, in the same way
(`upstream.intake`); `BodyBuffer` is for all others.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mirror.upstream.body import BlobBody
from mirror.upstream.errors import UpstreamError
from mirror.upstream.http.transport import PartReader
from mirror.util.tasks import Tasks, stop_task

# How far the network may be ahead of the disk, in bytes per connection.
AHEAD = 4 * 1024 * 1024


class BodyBuffer:
    """`collect` runs in a task of its own; `next` gives what it has collected."""

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
        try:
            async for chunk in self._chunks:
                self._parts.append(chunk)
                self._length += len(chunk)
                self._arrived.set()
                if self._length >= AHEAD or not self._begun:
                    self._room.clear()
                    await self._room.wait()
        except UpstreamError as error:
            self._error = error
        finally:
            self._ended = True
            self._arrived.set()

    async def next(self) -> list[bytes]:
        """What has arrived, as it came; nothing at the end. Raises UpstreamError after all before it."""
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
async def arriving(body: BlobBody, skip: int, tasks: Tasks) -> AsyncIterator[PartReader]:
    """What comes of a body, without its first `skip` bytes; UpstreamError after all before it."""
    straight = None if skip else body.direct_reader()
    if straight is not None:
        yield straight
        return
    pieces = BodyBuffer(skipping(body.chunks(), skip))
    collecting = tasks.spawn(pieces.collect(), name="collect")
    try:
        yield pieces.next
    finally:
        await stop_task(collecting)


async def skipping(chunks: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    """`chunks` without their first `count` bytes."""
    async for chunk in chunks:
        if count >= len(chunk):
            count -= len(chunk)
            continue
        yield chunk[count:]
        count = 0


def clipped(parts: Sequence[bytes | memoryview], length: int) -> list[bytes | memoryview]:
    """The first `length` bytes of `parts`."""
    kept: list[bytes | memoryview] = []
    for part in parts:
        if length <= 0:
            break
        kept.append(part[:length])
        length -= len(part)
    return kept
