"""Between the network and the disk: what arrives while one piece is written becomes the next piece.

So pieces are large where the network is fast, and never wait where it is slow or stalls.
"""

import asyncio
from collections.abc import AsyncIterator

from mirror.upstream.errors import UpstreamError

# How far the network may be ahead of the disk, in bytes per fill.
AHEAD = 4 * 1024 * 1024


class Pieces:
    """`collect` runs in a task of its own; `next` gives what it has collected."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._parts: list[bytes] = []
        self._length = 0
        self._error: UpstreamError | None = None
        self._ended = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    async def collect(self) -> None:
        try:
            async for chunk in self._chunks:
                self._parts.append(chunk)
                self._length += len(chunk)
                self._arrived.set()
                if self._length >= AHEAD:
                    self._room.clear()
                    await self._room.wait()
        except UpstreamError as error:
            self._error = error
        finally:
            self._ended = True
            self._arrived.set()

    async def next(self) -> bytes:
        """At least one byte, or none at the end. Raises UpstreamError after all that came before it."""
        await self._arrived.wait()
        piece = b"".join(self._parts)
        self._parts, self._length = [], 0
        self._room.set()
        if not self._ended:
            self._arrived.clear()
        if not piece and self._error is not None:
            raise self._error
        return piece


async def skipping(chunks: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    """`chunks` without their first `count` bytes."""
    async for chunk in chunks:
        if count >= len(chunk):
            count -= len(chunk)
            continue
        yield chunk[count:]
        count = 0
