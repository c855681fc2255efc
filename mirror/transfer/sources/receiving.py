"""Reception of responses: the buffer between network and disk, then the bytes into the growing file.

Bytes that arrive during one write become the next write. So writes are large where the network is fast, and
never wait where the network is slow or stalls. Only the first write is small, and nothing is collected
meanwhile: a client waits for these bytes, and a fast network would keep this process from sending them. Large
bodies are read straight from the socket, in the same way (`upstream.http.direct_read`); `BodyBuffer` is for
all others. Of a whole blob only the bytes that are missing are written.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.transfer import plan
from mirror.transfer.plan import PlanLimits, Segment
from mirror.upstream.body import BlobBody
from mirror.upstream.errors import Failure, UpstreamError, WrongSize
from mirror.upstream.http.transport import PartReader
from mirror.util.tasks import Tasks, stop_task
from mirror.util.tracebacks import without_frames

S = TypeVar("S")

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
    direct = body.content.direct_reader()
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


def check_size(digest: Digest, body: BlobBody, size: int | None, *, ranged: bool) -> None:
    """Raise UpstreamError for a response that is about a blob of another `size`.

    WrongSize if that is the answer to a plain request, which nothing is more certain than.
    """
    if body.total == 0 and digest != Digest.of(b"", digest.algorithm):
        raise UpstreamError(Failure.INVALID, f"an empty answer in place of {digest}")
    if size is not None and body.total not in (None, size):
        kind = UpstreamError if ranged else WrongSize
        raise kind(Failure.INVALID, f"{digest} is {size} bytes, not {body.total}")


def check_end(digest: Digest, body: BlobBody, segment: Segment[S]) -> None:
    """Raise UpstreamError if the response ended before the segment; WrongSize if it ended as it should."""
    if segment.left and body.whole and body.chunked:
        raise WrongSize(Failure.INVALID, f"{digest} is {segment.offset} bytes, not {segment.stop}")
    if segment.left:
        raise UpstreamError(Failure.UNREACHABLE, f"{digest}: ended at byte {segment.offset}")


def fills_gap(segment: Segment[S], missing: Sequence[Span], chunk_size: int) -> bool:
    """Return whether the segment begins where bytes are missing, and can be recorded.

    The partial of an earlier fill may have been of another size: the gaps are different then.
    """
    for gap in missing:
        if gap.start <= segment.start < gap.stop:
            return segment.start == gap.start or segment.start % chunk_size == 0
    return False


class Reception:
    """One response that is received into a growing file; `written`: the spans that came from it."""

    def __init__(self, writer: GrowingWriter, limits: PlanLimits) -> None:
        self.written: list[Span] = []
        self._writer = writer
        self._limits = limits

    async def receive(
        self, segment: Segment[S], next_parts: PartReader, on_first: Callable[[], object]
    ) -> bool:
        """Receive the segment's bytes; return whether the response has more than these.

        `on_first` is called when the first byte has come. Raises UpstreamError or StoreError.
        """
        # A whole blob is read past what is here; nothing else runs beside it.
        gaps = self._writer.file.missing() if not segment.start else [Span(segment.start, segment.stop)]
        while segment.left and (parts := await next_parts()):
            if segment.first_byte is None:
                on_first()
            length = min(sum(len(part) for part in parts), segment.left)
            surplus = sum(len(part) for part in parts) > length
            segment.writing = True
            for span in plan.overlaps(gaps, Span(segment.offset, segment.offset + length)):
                await self._writer.write(span.start, section(parts, segment.offset, span))
                plan.append_span(self.written, span)
            segment.writing = False
            segment.record(time.monotonic(), length, self._limits.low_speed_bytes)
            if surplus:
                return True
        return False
