"""Passing through: a blob straight from the upstream to one client, as the disk is of no use (invariant 12).

Nothing of it is kept, so each client costs a transfer of its own. The bytes are hashed as they pass, and the
end of the blob waits in memory until the digest is right (invariant 4). What a client wants without that end
is asked for as it is; what includes it is fetched from the beginning: the digest proves only the whole.
"""

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.errors import translated
from mirror.store.executor import DiskExecutor
from mirror.store.partial.growing import HELD_WHOLE
from mirror.transfer.body_buffer import clipped, skipping
from mirror.transfer.context import TransferContext
from mirror.transfer.failure_count import ConsecutiveFailures
from mirror.upstream.errors import Failure, UpstreamError, WrongBytes
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.source import Source
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger

log = get_logger(__name__)


# How much is compared at a time, in bytes.
COMPARED = 1024 * 1024


class ComparableReader(Protocol):
    """As much as a comparison needs of a `BlobReader`."""

    file: BinaryIO

    async def wait_readable(self, offset: int) -> int: ...


@dataclass(frozen=True, slots=True)
class SentPart:
    """What a client was sent of a growing file before that failed: a part that nobody has verified.

    With a right end behind it a wrong part would be a complete wrong blob (invariant 4): so it is compared.
    """

    file: BinaryIO
    span: Span
    executor: DiskExecutor

    async def agrees(self, piece: bytes, offset: int) -> bool:
        """Whether what was sent of this piece of the blob is what is in it. StoreError."""
        start, stop = max(offset, self.span.start), min(offset + len(piece), self.span.stop)
        if start >= stop:
            return True
        # A descriptor of the thread's own: the reader may leave, and close its file, in the meantime.
        with translated("compare"):
            descriptor = os.dup(self.file.fileno())
        read = await self.executor.run(_read_once, descriptor, stop - start, start)
        return read == piece[start - offset : stop - offset]

    async def agrees_with(self, reader: "ComparableReader") -> bool:
        """The same of another reader of the blob, as it may be read. Raises what `wait_readable` does."""
        offset = self.span.start
        while offset < self.span.stop:
            stop = min(await reader.wait_readable(offset), self.span.stop, offset + COMPARED)
            with translated("compare"):
                descriptor = os.dup(reader.file.fileno())
            piece = await self.executor.run(_read_once, descriptor, stop - offset, offset)
            if not piece or not await self.agrees(piece, offset):
                return False
            offset += len(piece)
        return True


def _read_once(descriptor: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


class PassThroughBlob:
    """A blob of a known size that the repository is known to have."""

    def __init__(
        self, context: TransferContext, upstream: Upstream, repository: Repository, digest: Digest, size: int
    ) -> None:
        self.size = size
        self._context = context
        self._upstream = upstream
        self._repository = repository
        self._digest = digest
        self._shortcut: dict[Source, DirectLocation] = {}
        self._served: set[Source] = set()
        self._failed: set[Source] = set()

    async def stream(self, span: Span, sent: "SentPart | None" = None) -> AsyncGenerator[bytes, None]:
        """The bytes of a span, once. UpstreamError when the rest will not come, or the whole is wrong.

        `sent`: what the client was given before, of which nobody knows yet whether it was right.
        """
        self._context.metrics.passed_through.inc()
        held = self.size - min(self.size, HELD_WHOLE)
        source = self._bytes(span) if span.stop <= held else self._proven(span, held, sent)
        async with aclosing(source) as pieces:
            async for piece in pieces:
                yield piece

    async def _proven(self, span: Span, held: int, sent: "SentPart | None") -> AsyncGenerator[bytes, None]:
        """A span with what lies behind `held` in it: that is given when all of the blob was right."""
        hasher, offset, end = self._digest.hasher(), 0, bytearray()
        async with aclosing(self._bytes(Span(0, self.size))) as pieces:
            async for piece in pieces:
                hasher.update(piece)
                if sent is not None and not await sent.agrees(piece, offset):
                    raise self._wrong()
                stop = offset + len(piece)
                if wanted := _part(piece, offset, Span(span.start, min(span.stop, held))):
                    yield wanted
                end += _part(piece, offset, Span(max(span.start, held), span.stop))
                offset = stop
        if hasher.hexdigest() != self._digest.encoded:
            raise self._wrong()
        yield bytes(end)

    async def _bytes(self, span: Span) -> AsyncGenerator[bytes, None]:
        """From one source after the other, each going on where the last one broke off."""
        offset, failures = span.start, ConsecutiveFailures(self._context.settings.attempts)
        while offset < span.stop:
            source, began = self._pick(), time.monotonic()
            try:
                async with aclosing(self._from(source, Span(offset, span.stop))) as pieces:
                    async for piece in pieces:
                        offset += len(piece)
                        yield piece
            except UpstreamError as error:
                failures.happened(began, offset - span.start, time.monotonic())
                self._failed.add(source)
                elsewhere = len(self._failed) < len(self._upstream.sources)
                if not (elsewhere or error.temporary) or failures.too_many:
                    raise
                log.info("transfer broke, resuming", reason=str(error), digest=str(self._digest))

    async def _from(self, source: Source, span: Span) -> AsyncGenerator[bytes, None]:
        """A span from one source: all of it, or UpstreamError."""
        shortcut = self._shortcut.setdefault(source, DirectLocation())
        asked = (span.start, None if span.stop == self.size else span.stop)
        path, began, left = self._repository.path, time.monotonic(), span.length
        async with source.connection_slot(), source.open_blob(path, self._digest, asked, shortcut) as body:
            if body.total not in (None, self.size):
                message = f"{self._digest} is {self.size} bytes, not {body.total}"
                raise UpstreamError(Failure.INVALID, message)
            chunks = skipping(body.chunks(), span.start - body.start)
            async for piece in _closing(chunks):
                if wanted := b"".join(clipped([piece], left)):
                    self._served.add(source)
                    left -= len(wanted)
                    yield wanted
                if not left:
                    break
        source.health.record_transfer(span.length - left, time.monotonic() - began)
        if left:
            raise UpstreamError(Failure.UNREACHABLE, f"{self._digest}: ended {left} bytes early")

    def _pick(self) -> Source:
        """The best that has not failed; of those that have, the upstream's own endpoint."""
        fresh = [source for source in self._upstream.usable_sources() if source not in self._failed]
        return fresh[0] if fresh else self._upstream.own

    def _wrong(self) -> UpstreamError:
        """What came is not what it should be. A mirror that brought all of it is left alone for that."""
        self._context.metrics.fill_failures.labels("digest").inc()
        if len(self._served) == 1 and (source := next(iter(self._served))) is not self._upstream.own:
            source.report_corruption(str(self._digest))
            self._context.metrics.source_wrong_bytes.labels(self._upstream.name, source.name).inc()
        return WrongBytes(Failure.INVALID, f"{self._upstream.name} sent bytes that are not {self._digest}")


def _part(piece: bytes, offset: int, span: Span) -> bytes:
    """What of a piece at `offset` lies in the span."""
    return piece[max(span.start - offset, 0) : max(span.stop - offset, 0)]


async def _closing(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """`chunks`, which end with whoever reads them."""
    if isinstance(chunks, AsyncGenerator):
        async with aclosing(chunks) as open_:
            async for chunk in open_:
                yield chunk
