"""Pass-through: a blob straight from the upstream to one client, when the disk is of no use (invariant 12).

No byte is kept, so each client costs a transfer of its own. The bytes are hashed as they pass, and the end of
the blob is held back in memory until the digest is right (invariant 4). A range without that end is requested
as it is. A range that includes the end is fetched from the beginning: the digest proves only the whole blob.
"""

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import BinaryIO, Protocol

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.errors import translated
from mirror.store.executor import DiskExecutor
from mirror.store.partial.growing import HOLDBACK_BYTES
from mirror.transfer.context import TransferContext
from mirror.transfer.failure_count import ConsecutiveFailures
from mirror.transfer.sources.range_fallback import RangeFallback
from mirror.transfer.sources.receiving import clipped, skipping
from mirror.upstream.body import BlobBody
from mirror.upstream.errors import Failure, UpstreamError, WrongBytes
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.source import Source
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger

log = get_logger(__name__)


# The end of a blob of unknown size.
ENDLESS = 2**62

# Length of the pieces that are compared, in bytes.
COMPARED_BYTES = 1024 * 1024


class RangeFailed(UpstreamError):
    """The same source is asked for the same bytes in the other way, by a range or plainly."""


class ComparableReader(Protocol):
    """The part of a reader that a comparison needs."""

    file: BinaryIO

    async def wait_readable(self, offset: int) -> int: ...


class SentPart(Struct, frozen=True):
    """The unverified part that a client was sent of a growing file before the file's fill failed.

    A wrong part with a right end after it would be a complete wrong blob (invariant 4): the part is compared
    with the bytes of the new transfer.
    """

    file: BinaryIO
    span: Span
    executor: DiskExecutor

    async def matches(self, piece: bytes, offset: int) -> bool:
        """Return whether the sent bytes match `piece`, which begins at `offset`. Raises StoreError."""
        start, stop = max(offset, self.span.start), min(offset + len(piece), self.span.stop)
        if start >= stop:
            return True
        # A descriptor for the thread alone: the reader may leave, and close its file, in the meantime.
        with translated("compare"):
            descriptor = os.dup(self.file.fileno())
        read = await self.executor.run(_read_once, descriptor, stop - start, start)
        return read == piece[start - offset : stop - offset]

    async def matches_reader(self, reader: "ComparableReader") -> bool:
        """Compare with another reader of the blob, as bytes become readable. Raises as `wait_readable`."""
        offset = self.span.start
        while offset < self.span.stop:
            stop = min(await reader.wait_readable(offset), self.span.stop, offset + COMPARED_BYTES)
            with translated("compare"):
                descriptor = os.dup(reader.file.fileno())
            piece = await self.executor.run(_read_once, descriptor, stop - offset, offset)
            if not piece or not await self.matches(piece, offset):
                return False
            offset += len(piece)
        return True


def _read_once(descriptor: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


class PassThroughBlob:
    """A blob that the repository is known to have, streamed past the disk.

    `size` is None where the upstream does not tell it: such a blob is streamed as a whole only.
    """

    def __init__(
        self,
        context: TransferContext,
        upstream: Upstream,
        repository: Repository,
        digest: Digest,
        size: int | None,
    ) -> None:
        self.size = size
        self._context = context
        self._upstream = upstream
        self._repository = repository
        self._digest = digest
        self._shortcuts: dict[Source, DirectLocation] = {}
        self._served: set[Source] = set()
        self._failed: set[Source] = set()
        self._held: Source | None = None  # whose connection slot the running transfer has
        self._ranges = RangeFallback()

    def when_crowded(self, call: Callable[[], object]) -> None:
        """Call `call` if a transfer runs, and others wait for its connection."""
        if self._held is not None and self._held.slots.is_waited_for:
            call()

    async def stream(self, span: Span, sent: "SentPart | None" = None) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a span. UpstreamError when the rest cannot be had, or the blob is corrupt.

        `sent`: the part that the client has received before, which is not verified yet.
        """
        self._context.metrics.passed_through.inc()
        if self.size is None:
            source = self._unsized()
        else:
            holdback = self.size - min(self.size, HOLDBACK_BYTES)
            source = self._bytes(span) if span.stop <= holdback else self._verified(span, holdback, sent)
        async with aclosing(source) as pieces:
            async for piece in pieces:
                yield piece

    async def _unsized(self) -> AsyncGenerator[bytes, None]:
        """Yield a blob of unknown size, its last bytes once the blob is verified."""
        hasher, held = self._digest.hasher(), bytearray()
        async with aclosing(self._bytes(Span(0, ENDLESS))) as pieces:
            async for piece in pieces:
                hasher.update(piece)
                held += piece
                if (surplus := len(held) - HOLDBACK_BYTES) > 0:
                    yield bytes(held[:surplus])
                    del held[:surplus]
        if hasher.hexdigest() != self._digest.encoded:
            raise self._corrupt()
        yield bytes(held)

    async def _verified(
        self, span: Span, holdback: int, sent: "SentPart | None"
    ) -> AsyncGenerator[bytes, None]:
        """Yield a span that reaches into the holdback; bytes of that come once the blob is verified."""
        hasher, offset, end = self._digest.hasher(), 0, bytearray()
        async with aclosing(self._bytes(Span(0, self.size or 0))) as pieces:
            async for piece in pieces:
                hasher.update(piece)
                if sent is not None and not await sent.matches(piece, offset):
                    raise self._corrupt()
                stop = offset + len(piece)
                if wanted := _part(piece, offset, Span(span.start, min(span.stop, holdback))):
                    yield wanted
                end += _part(piece, offset, Span(max(span.start, holdback), span.stop))
                offset = stop
        if hasher.hexdigest() != self._digest.encoded:
            raise self._corrupt()
        yield bytes(end)

    async def _bytes(self, span: Span) -> AsyncGenerator[bytes, None]:
        """Yield a span from one source after another; each continues where the last one broke off."""
        offset, failures = span.start, ConsecutiveFailures(self._context.settings.attempts)
        while offset < span.stop:
            source, began = self._pick(), time.monotonic()
            try:
                async with aclosing(self._from(source, Span(offset, span.stop))) as pieces:
                    async for piece in pieces:
                        offset += len(piece)
                        yield piece
                if self.size is None:
                    return  # the end of the response is the end of the blob
            except RangeFailed:
                continue
            except UpstreamError as error:
                failures.record(began, offset - span.start, time.monotonic())
                self._failed.add(source)
                elsewhere = len(self._failed) < len(self._upstream.sources)
                if not (elsewhere or error.temporary) or failures.too_many:
                    raise
                log.info("transfer broke, resuming", reason=str(error), digest=str(self._digest))

    async def _from(self, source: Source, span: Span) -> AsyncGenerator[bytes, None]:
        """Yield a span from one source, completely or with an UpstreamError at the end."""
        shortcut = self._shortcuts.setdefault(source, DirectLocation())
        ranged = self.size is not None and span.length < self.size and not self._ranges.plain(source)
        asked = (span.start, span.stop) if ranged else (0, None)
        path, began, left = self._repository.path, time.monotonic(), span.length
        try:
            async with self._slot(source), source.open_blob(path, self._digest, asked, shortcut) as body:
                if self.size is not None and body.total not in (None, self.size):
                    self._upstream.doubt_heads()  # the client's next request is answered with the right size
                    message = f"{self._digest} is {self.size} bytes, not {body.total}"
                    raise UpstreamError(Failure.INVALID, message)
                self._learn(source, body, span, ranged=ranged)
                chunks = skipping(body.chunks(), span.start - body.start)
                async for piece in _closing(chunks):
                    if wanted := b"".join(clipped([piece], left)):
                        self._served.add(source)
                        if not body.whole:
                            self._ranges.record_range(source)
                        left -= len(wanted)
                        yield wanted
                    if not left:
                        break
        except UpstreamError as error:
            unused = ranged and left == span.length
            if unused and self._ranges.record_failure(source, span, error):
                raise RangeFailed(error.failure, error.message) from None
            raise
        source.health.record_transfer(span.length - left, time.monotonic() - began)
        if left and self.size is not None:
            raise UpstreamError(Failure.UNREACHABLE, f"{self._digest}: ended {left} bytes early")

    @asynccontextmanager
    async def _slot(self, source: Source) -> AsyncIterator[None]:
        async with source.slots.hold():
            self._held = source
            try:
                yield
            finally:
                self._held = None

    def _learn(self, source: Source, body: BlobBody, span: Span, *, ranged: bool) -> None:
        """Remember how the source has answered; raise RangeFailed if the range is to be asked for again."""
        if body.whole and ranged:
            source.ranges.refuse()
        elif body.whole and not self._ranges.accept_whole(source, body, span.start):
            raise RangeFailed(Failure.INVALID, f"{source.name} has answered for the whole blob")

    def _pick(self) -> Source:
        """Return the best source that has not failed since all had."""
        sources = self._upstream.usable_sources()
        if self._failed.issuperset(sources):
            self._failed.clear()
        return next(source for source in sources if source not in self._failed)

    def _corrupt(self) -> UpstreamError:
        """Return the error for a corrupt blob; report the source if a mirror sent all of the blob."""
        self._context.metrics.fill_failures.labels("digest").inc()
        if len(self._served) == 1 and (source := next(iter(self._served))) is not self._upstream.own:
            source.report_corruption(str(self._digest))
            self._context.metrics.source_wrong_bytes.labels(self._upstream.name, source.name).inc()
        return WrongBytes(Failure.INVALID, f"{self._upstream.name} sent bytes that are not {self._digest}")


def _part(piece: bytes, offset: int, span: Span) -> bytes:
    """Return the part of a piece at `offset` that lies in the span."""
    return piece[max(span.start - offset, 0) : max(span.stop - offset, 0)]


async def _closing(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield `chunks`, and close their generator when the reader of this one stops."""
    if isinstance(chunks, AsyncGenerator):
        async with aclosing(chunks) as open_:
            async for chunk in open_:
                yield chunk
