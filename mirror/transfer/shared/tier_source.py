"""The object store as a source of blobs, so that plan, ranges and resume are those of any other source.

It has blobs by digest and knows no repositories: only a fill whose link the upstream has confirmed may use it
(`transfer.shared.shared_fill`). A failure is one of kind OFFLINE: the download then asks the upstream, at
once, and does not take the failure for one of ranges.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import LARGEST, Span
from mirror.shared.errors import TierError
from mirror.shared.tier import SharedTier
from mirror.upstream.body import BlobBody, BodyReaders
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.registry_client import RegistryClient
from mirror.upstream.source import Source, SourceOptions
from mirror.upstream.upstream import Upstream
from mirror.util.slots import SlotPool
from mirror.util.ttl_cache import TTLCache

NAME = "shared tier"

# Connections of one mirror to the object store.
MAX_CONNECTIONS = 32

# How long a blob that was wrong in the object store is not read from there, in seconds.
CORRUPT_SECONDS = 3600.0
MAX_CORRUPT = 10_000


class TierClient(RegistryClient):
    """A registry client that opens blobs from the object store; it is asked for nothing else."""

    def __init__(self, tier: SharedTier, metrics: Metrics) -> None:
        settings = UpstreamSettings(name=NAME, url="http://shared.invalid", max_connections=MAX_CONNECTIONS)
        super().__init__(settings, metrics)
        self._tier = tier

    @asynccontextmanager
    async def open_blob(
        self,
        path: str,
        digest: Digest,
        start: int = 0,
        stop: int | None = None,
        *,
        location: DirectLocation | None = None,
    ) -> AsyncIterator[BlobBody]:
        """Yield the bytes of a blob. Raises UpstreamError OFFLINE for any failure."""
        span = Span(start, LARGEST if stop is None else stop)
        try:
            async with self._tier.open_range(digest, span) as part:
                whole = part.span == Span(0, part.total)
                readers = BodyReaders(lambda: _translated(part.chunks), _no_direct_reader)
                ends = (part.span.start, part.span.stop)
                yield BlobBody(NAME, readers, ends, part.total, whole=whole)
        except TierError as error:
            raise UpstreamError(Failure.OFFLINE, str(error)) from None


class TierSource(Source):
    """The source; a blob that it had wrong is not asked of it again for a while."""

    def __init__(self, tier: SharedTier, metrics: Metrics, total: SlotPool) -> None:
        super().__init__(NAME, TierClient(tier, metrics), SourceOptions(tags=False), total)
        self._tier = tier
        self._corrupt: TTLCache[str, bool] = TTLCache(CORRUPT_SECONDS, MAX_CORRUPT)

    def trusts(self, digest: Digest) -> bool:
        """Return whether the blob may be read from the object store."""
        trusted = self.health.trusted(time.monotonic()) and not self.is_corrupt(digest)
        return trusted and self._tier.usable

    def is_corrupt(self, digest: Digest) -> bool:
        """Return whether the object store had other bytes under this digest, a while ago at the most."""
        return self._corrupt.get(str(digest)) is not None

    def report_corruption(self, what: str) -> None:
        """Do not read this blob from here; a store with one wrong blob is not wrong as a whole."""
        self._corrupt.put(what, True)


class TieredUpstream(Upstream):
    """An upstream with the object store in front of its sources, for the fill of one blob.

    The object store speaks for nothing: about repositories and sizes the upstream is asked.
    """

    def __init__(self, base: Upstream, source: TierSource, digest: Digest) -> None:
        vars(self).update(vars(base))
        self._base = base
        self._tier_source = source
        self._digest = digest
        self.sources = (*base.sources, source)

    def usable_sources(self) -> list[Source]:
        """Return the object store alone, while it may have the blob; a download excludes it if it fails."""
        usable = self._base.usable_sources()
        return [self._tier_source] if self._tier_source.trusts(self._digest) else usable

    def best_speakers(self) -> list[Source]:
        return self._base.best_speakers()

    def uses_account(self, path: str) -> bool:
        return self._base.uses_account(path)


async def _translated(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except TierError as error:
        raise UpstreamError(Failure.OFFLINE, str(error)) from None


def _no_direct_reader() -> None:
    return None
