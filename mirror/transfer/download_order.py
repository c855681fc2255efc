"""The description of one download, and the span with which the download begins; pure."""

from collections.abc import Sequence

from msgspec import Struct, field

from mirror.config.schema import FillSettings
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository
from mirror.store.partial.demand import Demand
from mirror.transfer import plan
from mirror.transfer.blob_source import BlobSource
from mirror.transfer.plan import DEFAULT_LIMITS, PlanLimits

# The end of a blob whose size is not known yet.
ENDLESS = 2**62


class DownloadOrder(Struct, frozen=True):
    """The blob to download, what is known about it, and the settings to follow.

    `size`: in bytes, where a manifest names it. `missing`: the gaps that an earlier fill left, None for all.
    `linked`: the repository is known to have the blob; otherwise the upstream's own endpoint is asked first.
    `demand`: the parts that clients have asked for. `one_by_one`: the sources to ask one after another for a
    blob that was corrupt, to find the culprit.
    """

    repository: Repository
    digest: Digest
    size: int | None
    missing: Sequence[Span] | None
    linked: bool
    settings: FillSettings
    limits: PlanLimits = DEFAULT_LIMITS
    one_by_one: Sequence[BlobSource] = ()
    demand: Demand = field(default_factory=lambda: Demand(whole=True))

    def first_span(self, source: BlobSource, *, without_range: bool = False) -> Span:
        """Return the span of the first request; up to ENDLESS for a whole blob of unknown size.

        `without_range`: a range of the source failed.
        """
        settings, ranges = self.settings, source.ranges.available and not without_range
        if self.missing is None and self.size is None:
            # The response to a range has the size too, and others can bring the rest, if that is worth it.
            ranged = (settings.parallel > 1 or not self.demand.whole) and ranges
            return Span(0, max(self.limits.first_span, settings.parallel_above) if ranged else ENDLESS)
        missing = self.missing or [Span(0, self.size or 0)]
        if not self.demand.whole and ranges and (gaps := self.demand.gaps(missing)):
            missing = gaps
        gap = missing[0]
        left = sum(each.length for each in missing)
        if settings.parallel == 1 or left <= settings.parallel_above or not ranges:
            return gap
        length = self.limits.span_length(left, source.concurrency, source.health.speed, settings.chunk_size)
        return plan.bounded(gap.start, gap.stop, length, settings.chunk_size)

    def log_fields(self, source: BlobSource) -> dict[str, str]:
        """Return the fields of a log line about a request to `source`."""
        return {"source": source.name, "repository": str(self.repository), "digest": str(self.digest)}
