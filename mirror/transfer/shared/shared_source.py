"""The shared tier as a source of one blob, so that plan, ranges and resume are those of any other source.

It has blobs by digest and knows no repositories: only a fill whose link the upstream has confirmed may use it
(`transfer.shared.shared_fill`). Behind it is the object store, or the mirror that fetches the blob, whose
file this mirror follows with one connection, each byte once. When neither helps, the failure is of kind
OFFLINE: the download then asks the upstream, at once, and does not take the failure for one of ranges.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import LARGEST, Span
from mirror.shared.errors import TierError
from mirror.shared.tier import SharedTier
from mirror.transfer.shared.coordination import Coordination, Place
from mirror.transfer.shared.line_concurrency import LineConcurrency
from mirror.transfer.shared.peers import PeerClients
from mirror.upstream.body import BlobBody, BodyReaders
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.transport import PartReader
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.registry_client import RegistryClient
from mirror.upstream.source import Source, SourceOptions
from mirror.upstream.sources.slots import SourceSlots
from mirror.upstream.upstream import Upstream
from mirror.util.slots import SlotPool

NAME = "shared tier"

# Connections of one mirror to the object store.
MAX_CONNECTIONS = 32

# Bodies of one blob that may break before the upstream is asked.
MOST_BROKEN = 4

# Time of a span from the object store, in seconds: so many round trips, and at least and at most these.
ROUND_TRIPS = 13
LEAST_SPAN, MOST_SPAN = 0.25, 2.0

# The number of round trips that the shortest one is taken of: on a busy line most of them are longer.
REMEMBERED = 32

# Interval, in seconds, at which a mirror that follows another one looks for the blob in the object store.
LOOK_SECONDS = 2.0


class TierClient(RegistryClient):
    """A registry client that opens blobs from the object store; it is asked for nothing else."""

    def __init__(self, tier: SharedTier, metrics: Metrics) -> None:
        settings = UpstreamSettings(name=NAME, url="http://shared.invalid", max_connections=MAX_CONNECTIONS)
        super().__init__(settings, metrics)
        self._tier = tier
        self.line = LineConcurrency(MAX_CONNECTIONS)
        self._round_trips: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def span_seconds(self) -> float:
        """The time of a span: a round trip is a small part of it, and a reader does not wait long for it."""
        nearest = min(self._round_trips, default=MOST_SPAN)
        return min(max(ROUND_TRIPS * nearest, LEAST_SPAN), MOST_SPAN)

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
        span, began = Span(start, LARGEST if stop is None else stop), time.monotonic()
        try:
            async with self._tier.open_range(digest, span) as part:
                self._round_trips.append(time.monotonic() - began)
                whole = part.span == Span(0, part.total)
                readers = BodyReaders(lambda: _translated(part.chunks), _no_direct_reader)
                ends = (part.span.start, part.span.stop)
                yield BlobBody(NAME, readers, ends, part.total, whole=whole)
        except TierError as error:
            raise UpstreamError(Failure.OFFLINE, str(error)) from None


class SharedSource(Source):
    """The source of one blob, for one fill."""

    def __init__(
        self, client: TierClient, coordination: Coordination, peers: PeerClients | None, total: SlotPool
    ) -> None:
        super().__init__(NAME, client, SourceOptions(tags=False), total)
        self._client = client
        self._coordination = coordination
        self._peers = peers
        self._broken = 0
        self._parallel_slots = self.slots
        self._follower_slots = SourceSlots(total, 1)
        self._next_look = 0.0
        self._looking: asyncio.Task[bool] | None = None
        self._clock = asyncio.get_running_loop().time
        self.is_wrong = False  # its bytes have not the digest
        self.was_followed = False

    @property
    def store_span(self) -> float:
        """The time of a span in seconds, while the object store is read; else 0."""
        return self._client.span_seconds if self._coordination.reads_store else 0.0

    def follow(self) -> None:
        """Use one connection: another mirror's file is followed."""
        self.slots, self.was_followed = self._follower_slots, True
        self._next_look = self._clock() + LOOK_SECONDS

    @asynccontextmanager
    async def open_blob(
        self, repository: str, digest: Digest, span: tuple[int, int | None], location: DirectLocation
    ) -> AsyncIterator[BlobBody]:
        """Open a blob where it is now. Raises UpstreamError OFFLINE where only the upstream can help."""
        async with AsyncExitStack() as stack:
            place, body = await self._open(stack, digest, span)
            watched = (place, digest)
            yield BlobBody(
                NAME,
                BodyReaders(
                    lambda: self._watched(watched, body), lambda: self._watched_directly(watched, body)
                ),
                (body.start, None),
                body.total,
                whole=body.whole,
            )

    def suspect(self) -> None:
        """Note that this or another source sent wrong bytes."""
        self.is_wrong = True

    def report_corruption(self, what: str) -> None:
        """Note that this source sent wrong bytes."""
        self.is_wrong = True

    async def _open(
        self, stack: AsyncExitStack, digest: Digest, span: tuple[int, int | None]
    ) -> tuple[Place, BlobBody]:
        start, stop = span
        while (place := await self._coordination.place()) is not None:
            began = self._clock()
            try:
                return place, await stack.enter_async_context(
                    self._client_of(place).open_blob("", digest, start, stop)
                )
            except UpstreamError:
                self._coordination.record_failure(place, self._behind(place, digest), self._clock() - began)
        raise UpstreamError(Failure.OFFLINE, "not in the shared tier")

    def _client_of(self, place: Place) -> RegistryClient:
        if place.peer is None or self._peers is None:
            self.slots = self._parallel_slots
            return self._client
        self.follow()
        return self._peers.get(place.peer.address)

    async def _watched(self, watched: tuple[Place, Digest], body: BlobBody) -> AsyncGenerator[bytes]:
        since = self._clock()
        try:
            async for chunk in body.chunks():
                yield chunk
                self._leave_if_stored(watched[0])
                since = self._clock()
        except UpstreamError as error:
            raise self._failed(watched, error, self._clock() - since) from None

    def _watched_directly(self, watched: tuple[Place, Digest], body: BlobBody) -> PartReader | None:
        read = body.content.direct_reader()
        if read is None:
            return None

        async def next_parts() -> Sequence[bytes | memoryview]:
            since = self._clock()
            try:
                self._leave_if_stored(watched[0])
                return await read()
            except UpstreamError as error:
                raise self._failed(watched, error, self._clock() - since) from None

        return next_parts

    def _leave_if_stored(self, place: Place) -> None:
        """Raise UpstreamError once the object store has the blob that another mirror is followed for.

        All that follow a mirror share its line, with its upload to the store. No byte waits for the look.
        """
        looking, now = self._looking, self._clock()
        if looking is None and place.peer is not None and now >= self._next_look:
            with suppress(RuntimeError):  # while the mirror stops
                self._looking = self._coordination.look_again(place)
        if looking is None or not looking.done():
            return
        self._looking = None
        self._next_look = now + LOOK_SECONDS if self._coordination.store_answers else math.inf
        if not looking.cancelled() and looking.result():
            raise UpstreamError(Failure.UNREACHABLE, "the object store has the blob now")

    def _behind(self, place: Place, digest: Digest) -> int | None:
        if place.peer is None or self._peers is None:
            return 0
        return self._peers.get(place.peer.address).behind(digest)

    def _failed(self, watched: tuple[Place, Digest], error: UpstreamError, lost: float) -> UpstreamError:
        """Return the error of a body that broke: the rest is asked for again, wherever it is then."""
        self._coordination.record_failure(watched[0], self._behind(*watched), lost)
        self._broken += 1
        kind = Failure.OFFLINE if self._broken > MOST_BROKEN else Failure.UNREACHABLE
        return UpstreamError(kind, error.message)


class SharedUpstream(Upstream):
    """An upstream with the shared tier in front of its sources, for the fill of one blob.

    The tier speaks for nothing: about repositories and sizes the upstream is asked.
    """

    def __init__(self, base: Upstream, source: SharedSource) -> None:
        vars(self).update(vars(base))
        self._base = base
        self._shared_source = source
        self.sources = (*base.sources, source)

    def usable_sources(self) -> list[Source]:
        """Return the tier alone, until its bytes are wrong; a download excludes it if it does not help."""
        return self._base.usable_sources() if self._shared_source.is_wrong else [self._shared_source]

    def best_speakers(self) -> list[Source]:
        return self._base.best_speakers()

    def uses_account(self, path: str) -> bool:
        return self._base.uses_account(path)


async def _translated(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except TierError as error:
        raise UpstreamError(Failure.UNREACHABLE, str(error)) from None


def _no_direct_reader() -> None:
    return None
