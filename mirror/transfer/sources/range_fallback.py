"""The way back from a range to the plain request, which every source can answer.

Sources mis-answer ranges in many ways: with an error, with the whole blob, with another part, with a wrong or
no Content-Range, by closing the connection. A plain GET of the whole blob is what simple clients send, so it
is the next request to such a source: bytes that are here are read past. If that is answered, the source is
asked for no range for a while (`RangeSupport.refuse`).
"""

from msgspec import Struct

from mirror.oci.ranges import Span
from mirror.transfer.blob_source import BlobSource
from mirror.upstream.body import BlobBody
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.range_support import DOUBTED_FOR, REFUSED_FOR
from mirror.util.log import get_logger

log = get_logger(__name__)

# Most bytes that are read past after a failure that a restart of the source could have caused; before more of
# them are, the range is asked for once more.
REREAD_BYTES = 64 * 1024 * 1024

# Failures that a plain request would meet, too.
_NOT_OF_THE_RANGE = frozenset({Failure.RATE_LIMITED, Failure.OFFLINE})


class _Doubt(Struct):
    """A range that failed. `temporary`: it may have failed for another reason than the range.

    `too_long`: perhaps because it ended after the blob.
    """

    span: Span
    temporary: bool
    too_long: bool


class RangeFallback:
    """Knowledge of one transfer about ranges at each source."""

    def __init__(self) -> None:
        self._doubts: dict[BlobSource, _Doubt] = {}
        self._asked_again: set[BlobSource] = set()
        self._answered: set[BlobSource] = set()  # sources that answered a range of this blob as asked

    def plain(self, source: BlobSource) -> bool:
        """Return whether the next request to `source` is for the whole blob."""
        return source in self._doubts or not source.ranges.available

    def answered(self, source: BlobSource) -> bool:
        """Return whether ranges of this blob have been answered as asked, and still are."""
        return source in self._answered and not self.plain(source)

    def doubted(self, source: BlobSource) -> bool:
        """Return whether a range failed, and no plain request has been answered since."""
        return source in self._doubts

    def record_failure(
        self, source: BlobSource, span: Span, error: UpstreamError, *, last: bool = False
    ) -> bool:
        """Record that a range brought no byte; return whether a plain request may bring some.

        A temporary failure says nothing against ranges where others were answered. `last`: the transfer
        survives no further failure.
        """
        others = error.failure in _NOT_OF_THE_RANGE or (error.temporary and source in self._answered)
        if source in self._doubts or (others and not last) or error.failure is Failure.OFFLINE:
            return False
        self._doubts[source] = _Doubt(span, error.temporary, too_long=error.status == 416)
        log.info("range failed, asking for the whole blob", source=source.name, reason=str(error))
        return True

    def record_plain_failure(self, source: BlobSource) -> None:
        """Record that a plain request failed, too: the range was not the reason."""
        self._doubts.pop(source, None)

    def record_range(self, source: BlobSource) -> None:
        """Record a range that was answered as asked, with bytes."""
        self._answered.add(source)
        self._doubts.pop(source, None)
        source.ranges.confirm()

    def accept_whole(self, source: BlobSource, body: BlobBody, present: int) -> bool:
        """Record an answer with the whole blob, of which `present` bytes from its start are here.

        Returns False if the range is to be asked for once more.
        """
        doubt = self._doubts.pop(source, None)
        if doubt is None:
            return True
        if doubt.temporary and present > REREAD_BYTES and source not in self._asked_again:
            self._asked_again.add(source)
            return False
        # A range that ends after the blob may be refused by a source that answers all others.
        if not (doubt.too_long and body.total is not None and doubt.span.stop > body.total):
            source.ranges.refuse(DOUBTED_FOR if doubt.temporary else REFUSED_FOR)
        return True
