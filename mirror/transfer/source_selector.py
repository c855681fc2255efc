"""Source selection: which source a download asks next, and which sources it no longer asks."""

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from mirror.transfer.blob_source import BlobSource, BlobSources
from mirror.transfer.plan import Segment
from mirror.transfer.sources.range_fallback import RangeFallback
from mirror.upstream.errors import UpstreamError
from mirror.util.tracebacks import without_frames


class SourceSelector:
    """The sources of one upstream, with what one download has learnt about each of them.

    `linked`: the repository is known to have the blob, so any source may be asked; otherwise the upstream's
    speakers are asked first. `one_by_one`: the sources to ask one after another, so that the source of
    each byte is known.
    """

    def __init__(self, upstream: BlobSources, *, linked: bool, one_by_one: Sequence[BlobSource] = ()) -> None:
        self.blob_confirmed = linked  # the repository is known to have the blob
        self.ranges = RangeFallback()
        self._upstream = upstream
        self._one_by_one = one_by_one
        self._excluded: dict[BlobSource, UpstreamError] = {}
        self._back_offs: Counter[BlobSource] = Counter()
        self._back_off_until: dict[BlobSource, float] = {}

    def candidates(self) -> list[BlobSource]:
        """Return the sources that may have the blob, best first.

        When all sources are excluded, raises the error of the upstream's own endpoint, or else of the source
        that was excluded first.
        """
        own = self._upstream.own
        if not self.blob_confirmed:
            speakers = [each for each in self._upstream.best_speakers() if each not in self._excluded]
            if speakers:
                return speakers[:1]
            # Other sources may stand in for a speaker that fails, and not overrule one (invariant 5).
            for each in self._upstream.speakers:
                if (error := self._excluded.get(each)) is not None and error.final:
                    raise error
        if left := [source for source in self._one_by_one if source not in self._excluded]:
            return left[:1]
        candidates = [source for source in self._upstream.usable_sources() if source not in self._excluded]
        if not candidates:
            candidates = [source for source in self._upstream.sources if source not in self._excluded]
        if not candidates:
            raise self._excluded.get(own) or next(iter(self._excluded.values()))
        return candidates

    def pick(self, busy: Mapping[BlobSource, int], unproven: Collection[BlobSource] = ()) -> BlobSource:
        """Return the source of the next connection: each gets as many as its speed is worth.

        `busy`: the connections of each source; `unproven`: sources that have their first connection and are
        still to show their speed. Raises as `candidates`.
        """
        now = time.monotonic()
        candidates = self.candidates()
        candidates = [source for source in candidates if not source.throttled(now)] or candidates
        candidates = [each for each in candidates if self._back_off_until.get(each, now) <= now] or candidates
        candidates = [source for source in candidates if source not in unproven] or candidates
        candidates = [source for source in candidates if not self.ranges.doubted(source)] or candidates
        fastest = max(source.health.speed for source in candidates) or 1.0

        def share(source: BlobSource) -> float:
            speed = source.weight * (source.health.speed or fastest) / (1 + 9 * self._back_offs[source])
            usable = not busy or not (self.ranges.plain(source) or source.slots.saturated)
            return speed / (1 + busy.get(source, 0)) if usable else 0.0

        return max(candidates, key=share)

    def unproven(self, segments: Collection[Segment[BlobSource]]) -> set[BlobSource]:
        """Return sources of unknown speed that have not answered; none if all candidates are such."""
        new = {segment.source for segment in segments if not segment.source.health.speed}
        new -= {segment.source for segment in segments if segment.answered}
        return new if set(self.candidates()) - new else set()

    def exclude(self, source: BlobSource, error: UpstreamError) -> None:
        """Ask a source that cannot help no more. Raises as `candidates` if all are excluded."""
        self._excluded[source] = without_frames(error)
        self.candidates()

    def back_off(self, source: BlobSource) -> None:
        """Prefer other sources for a while, longer each time: `source` fell silent, or was too slow."""
        self._back_offs[source] += 1
        self._back_off_until[source] = time.monotonic() + 2.0 ** min(self._back_offs[source], 6)

    def back_offs(self, source: BlobSource | None = None) -> int:
        """Return the number of back-offs from `source`, or from all sources together."""
        return self._back_offs.total() if source is None else self._back_offs[source]
