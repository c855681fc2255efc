"""Progress of a transfer, for those who watch it."""

from collections import Counter
from collections.abc import Collection

from mirror.store.partial.growing import GrowingFile
from mirror.transfer.blob_source import BlobSource
from mirror.transfer.plan import Segment


class TransferProgress:
    """Bytes that are here and connections that fetch more. `segments`: what its download fetches now."""

    def __init__(self) -> None:
        self.file: GrowingFile | None = None  # of a large blob, once the upstream has told its size
        self.segments: Collection[Segment[BlobSource]] = ()
        self.ended = False
        self._finished: Counter[str] = Counter()  # bytes of segments that have ended, by source

    @property
    def received(self) -> int:
        """Return how many bytes of a large blob are here; 0 before the first one, and for a small blob."""
        return 0 if self.file is None else self.file.received()

    @property
    def size(self) -> int | None:
        """Size of a large blob, in bytes; None before the upstream has told it, and for a small blob."""
        return None if self.file is None else self.file.size

    @property
    def connections(self) -> Counter[str]:
        """The number of connections that fetch the blob now, by source."""
        return Counter() if self.ended else Counter(each.source.name for each in self.segments)

    @property
    def received_from(self) -> Counter[str]:
        """The bytes that have come from each source."""
        found = Counter(self._finished)
        for each in () if self.ended else self.segments:
            found[each.source.name] += each.offset - each.start
        return found

    def note_ended(self, segment: Segment[BlobSource]) -> int:
        """Count the bytes of a segment that has ended, for its source; return their number."""
        length = segment.offset - segment.start
        self._finished[segment.source.name] += length
        return length
