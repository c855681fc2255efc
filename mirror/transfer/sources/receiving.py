"""Reception of one response: its bytes into the growing file, of a whole blob only those that are missing."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.transfer import plan
from mirror.transfer.body_buffer import section
from mirror.transfer.plan import PlanLimits, Segment
from mirror.upstream.body import BlobBody
from mirror.upstream.errors import Failure, UpstreamError, WrongSize
from mirror.upstream.http.transport import PartReader

S = TypeVar("S")


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
