"""The demand for a blob that is being filled: all of it, or the parts that clients have asked for.

Clients that pull lazily read a few per cent of a blob, by ranges. Parts are counted in chunks.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from mirror.oci.errors import RegistryError
from mirror.oci.ranges import Span, parse_range

# Range headers that are kept until the size is known, at most; with more, all of the blob is wanted.
KEPT_HEADERS = 256

# A blob is read eagerly, though by ranges, once clients have asked for one part in this many of it, or for
# EAGER_PREFIX_BYTES from its start: parallel pulls, as containerd's, begin there. stargz prefetches 10 MB.
EAGER_PART = 2
EAGER_PREFIX_BYTES = 16 * 1024 * 1024


class Demand:
    """The parts that clients have asked for since the fill began. For the event loop."""

    def __init__(self, *, whole: bool = False) -> None:
        """`whole`: all of the blob is wanted. `changed` is set whenever the download has to look again."""
        self.whole = whole
        self.changed = asyncio.Event()
        self._headers: list[str] = []
        self._size = self._chunk_size = 0  # 0: not known yet
        self._asked = bytearray()  # 1 for each chunk that was asked for
        self._open: set[int] = set()  # chunks that were asked for, and not seen to be complete
        self._count = self._prefix = 0  # chunks that were asked for, in all and from the start

    def add(self, header: str | None) -> None:
        """Add a request with this Range header; None for one without."""
        if self.whole:
            return
        if header is None or header.rstrip().endswith("-") or len(self._headers) >= KEPT_HEADERS:
            self.set_whole()
        elif self._size:
            self._mark(self._spans_of(header))
        else:
            self._headers.append(header)
        self.changed.set()

    def set_whole(self) -> None:
        """Want all of the blob from now on."""
        if not self.whole:
            self.whole = True
            self._headers.clear()
            self._asked, self._open = bytearray(), set()
            self.changed.set()

    def resolve(self, size: int, chunk_size: int) -> None:
        """Note the size of the blob and of its chunks, by which ranges become chunks."""
        if self.whole or (size, chunk_size) == (self._size, self._chunk_size):
            return
        before = [self._chunk(index) for index, asked in enumerate(self._asked) if asked]
        self._size, self._chunk_size = size, chunk_size
        self._asked, self._open = bytearray(-(-size // chunk_size)), set()
        self._count = self._prefix = 0
        headers, self._headers = self._headers, []
        self._mark(Span(each.start, min(each.stop, size)) for each in before)
        for header in headers:
            self._mark(self._spans_of(header))

    def ask_chunk(self, offset: int) -> None:
        """Add the chunk at `offset`: a reader of another process waits there."""
        if not self.whole:
            self._mark([Span(offset, offset + 1)])

    def gaps(self, missing: Sequence[Span]) -> list[Span]:
        """Return the parts that were asked for and are missing, in order; neighbours merged."""
        if self.whole:
            return list(missing)
        starts = [each.start for each in missing]
        found: list[Span] = []
        for index in sorted(self._open):
            chunk = self._chunk(index)
            gap = bisect_right(starts, chunk.stop - 1) - 1
            if gap < 0 or missing[gap].stop <= chunk.start:
                self._open.discard(index)
                continue
            span = Span(max(missing[gap].start, chunk.start), min(missing[gap].stop, chunk.stop))
            if found and found[-1].stop == span.start:
                span = Span(found.pop().start, span.stop)
            found.append(span)
        return found

    def is_eager(self) -> bool:
        """Return whether clients read the blob as a pull does, so that the rest will be wanted too."""
        if self.whole:
            return True
        asked, prefix = self._count * self._chunk_size, self._prefix * self._chunk_size
        return asked * EAGER_PART >= self._size > 0 or prefix >= EAGER_PREFIX_BYTES

    def _spans_of(self, header: str) -> list[Span]:
        try:
            spans = parse_range(header, self._size)
        except RegistryError:  # beyond the end: the client gets an error, and no byte
            return []
        return spans or [Span(0, self._size)]

    def _mark(self, spans: Iterable[Span]) -> None:
        for span in spans:
            if span.length <= 0:
                continue
            for index in range(span.start // self._chunk_size, -(-span.stop // self._chunk_size)):
                if index < len(self._asked) and not self._asked[index]:
                    self._asked[index] = 1
                    self._open.add(index)
                    self._count += 1
        while self._prefix < len(self._asked) and self._asked[self._prefix]:
            self._prefix += 1
        if self._count == len(self._asked) and self._count:
            self.set_whole()

    def _chunk(self, index: int) -> Span:
        start = index * self._chunk_size
        return Span(start, min(start + self._chunk_size, self._size))
