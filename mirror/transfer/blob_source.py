"""Protocols of a source of bytes, and of the set of sources that a download may choose from.

`upstream.source.Source` is one kind: an endpoint of an upstream. Another kind that has these members (an
object store, another mirror's running fill) gets a share of the segments by its speed, is backed off from,
excluded, suspected and proven wrong as upstreams are. A set of sources decides which of them may be asked,
and which of them speak for the upstream about what a repository has (invariant 5).
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from mirror.oci.digest import Digest
from mirror.upstream.body import BlobBody
from mirror.upstream.health import SourceHealth
from mirror.upstream.http.range_support import RangeSupport
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.sources.slots import SourceSlots


class BlobSource(Protocol):
    """One source. Sources are keys of dictionaries: equal only to themselves.

    `concurrency`: connections that paid for the last blob. `weight`: the operator's preference, by which the
    speed is multiplied.
    """

    name: str
    weight: float
    health: SourceHealth
    slots: SourceSlots
    ranges: RangeSupport
    concurrency: int

    def throttled(self, now: float) -> bool:
        """Return whether a second connection for a blob is forbidden for now."""
        ...

    def open_blob(
        self, repository: str, digest: Digest, span: tuple[int, int | None], location: DirectLocation
    ) -> AbstractAsyncContextManager[BlobBody]:
        """Open the bytes of a blob from the span's start to its stop, None for its end; record the outcome.

        A source may send other bytes, and says so in the `BlobBody`. Raises UpstreamError, temporary if
        asking again can help. `location` is the download's memory of where the source has redirected it.
        """
        ...

    def suspect(self) -> None:
        """Stop using the source until the suspicion is cleared: this or another sent wrong bytes."""
        ...

    def report_corruption(self, what: str) -> None:
        """Stop using the source for a while: it sent wrong bytes for the digest `what`."""
        ...


class BlobSources(Protocol):
    """The sources of one upstream's blobs; `own` is its endpoint, whose error counts if all fail."""

    name: str

    @property
    def own(self) -> BlobSource: ...

    @property
    def sources(self) -> Sequence[BlobSource]:
        """Return all sources."""
        ...

    @property
    def speakers(self) -> Sequence[BlobSource]:
        """Return the sources that speak for the upstream about what a repository has."""
        ...

    def usable_sources(self) -> Sequence[BlobSource]:
        """Return the sources that may be asked now, best first."""
        ...

    def best_speakers(self) -> Sequence[BlobSource]:
        """Return the sources that speak for the upstream, best first: the usable ones, or all."""
        ...
