"""Prefetch: blobs of a manifest are fetched before the client that received the manifest asks for them.

A small config comes with the manifest. The layers follow when a client requests the first of them (`layer`),
because many clients only look at manifests and configs; or with the manifest too (`manifest`). They come in
the order of the manifest: a few at a time, each over one connection. A client's own request joins the fill,
which is then a fill like any other. Prefetches give way to clients:

- one starts only where a connection is left for a client;
- never at an upstream that is throttled, low on its rate limit or not available;
- it evicts nothing: one starts only if what the manifest says of its size fits, beside the running ones,
  and none for a while after a recently used blob was evicted;
- one that no client has joined ends, to be resumed, on disk trouble and when the mirror stops.

An index prefetches nothing: the client's next request tells which of its platforms is wanted.
"""

import asyncio
import math
import time
from collections.abc import Iterable

from msgspec import Struct

from mirror.cache.blobs import BlobCache
from mirror.cache.manifest_reader import ManifestReader
from mirror.cache.pull.contents import blobs_of
from mirror.cache.results import ManifestAnswer, Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import SMALL_BYTES
from mirror.store.blobs.quota import IN_USE
from mirror.store.errors import StoreError
from mirror.store.links.content import LocalContent
from mirror.transfer.context import TransferContext
from mirror.transfer.flight import Flight
from mirror.upstream.errors import UpstreamError
from mirror.upstream.health import BreakerState
from mirror.upstream.upstream import Upstream
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.fairness.budget import DownloadBudget, current_budget, set_budget
from mirror.util.log import get_logger
from mirror.util.ttl_cache import TTLCache

log = get_logger(__name__)

# The most blobs that wait in the queue. Images have ten layers, seldom more than a hundred.
QUEUE = 256

# How long a manifest is not examined again, in seconds: a hot manifest costs a lookup, and a blob that could
# not be fetched is not asked for at every request. Not forever, because blobs are evicted.
REMEMBERED_SECONDS = 600.0
# The most manifests that are remembered so.
REMEMBERED = 4096

# Pause after a fill failed because of the disk, in seconds.
DISK_PAUSE = 60.0

# Pause after a recently used blob was evicted, in seconds: a prefetched blob would be evicted before a client
# asks for it, or would cause the next eviction.
ROOM_PAUSE = IN_USE

# Interval at which the queue is checked for an upstream with a free connection, in seconds.
HOLD_SECONDS = 0.2

# Prefetches at a time that no client has joined, if the configuration names no number.
WORKERS = 3

# The largest blob of a referrer that is prefetched, in bytes: signatures, bundles and most SBOMs.
SMALL_REFERRING = 4 * 1024 * 1024

# Layers whose image is known until a client requests one of them, and for how long, in seconds: longer than a
# manifest is not examined again.
LAYERS = 16_384
LAYERS_SECONDS = 2 * REMEMBERED_SECONDS


class _Image(Struct):
    """The layers of a manifest that a client has received, emptied once they are queued."""

    layers: list[Digest]


class Prefetch:
    """A queue of blobs, and a few workers, each with a fill that no client has joined yet."""

    def __init__(
        self, context: TransferContext, upstreams: UpstreamSet, blobs: BlobCache, reader: ManifestReader
    ) -> None:
        self._reader = reader
        self._context = context
        self._upstreams = upstreams
        self._blobs = blobs
        way = context.settings.prefetch
        self._with_manifest = way != "layer"
        self._max_workers = WORKERS if way in ("layer", "manifest") else 0 if way == "off" else int(way)
        self._images: TTLCache[tuple[Repository, Digest], _Image] = TTLCache(LAYERS_SECONDS, LAYERS)
        self._queue: dict[Digest, Repository] = {}
        self._budgets: dict[Digest, DownloadBudget] = {}  # of clients, by queued blobs
        self._unjoined: dict[Flight, int] = {}  # bytes of each, as its manifest says
        self._workers = 0
        self._starting = asyncio.Lock()
        self._examined: TTLCache[tuple[Repository, Digest], bool] = TTLCache(REMEMBERED_SECONDS, REMEMBERED)
        self._paused_until = 0.0
        blobs.on_disk_error(lambda: self._cancel_all(DISK_PAUSE))

    def enqueue(self, repository: Repository, answer: ManifestAnswer) -> None:
        """Queue the blobs of a manifest that a client receives. Costs a lookup for a recent manifest."""
        # Stale: the upstream has not answered, so it is not asked for blobs that no client waits for.
        if not self._max_workers or answer.outcome is Outcome.STALE:
            return
        key = (repository, answer.digest)
        if self._examined.get(key) or not self._allowed(repository, time.monotonic()):
            return
        self._examined.put(key, True)
        self._context.tasks.spawn(self._examine(repository, answer), name="prefetch")

    def allows(self, repository: Repository) -> bool:
        """Return whether anything may be prefetched for a repository now."""
        return bool(self._max_workers) and self._allowed(repository, time.monotonic())

    async def add_small(self, repository: Repository, answer: ManifestAnswer) -> None:
        """Queue all blobs of a manifest that have at most SMALL_REFERRING bytes."""
        manifest = await self._reader.read(answer.digest, answer.data, answer.media_type)
        if manifest is not None:
            small = {child.digest for child in manifest.children() if child.size <= SMALL_REFERRING}
            self._add(repository, (each for each in blobs_of(manifest) if each in small))

    def note_layer(self, repository: Repository, digest: Digest) -> None:
        """Queue the other layers of an image of which a client reads this one from its beginning."""
        image = self._images.get((repository, digest))
        if image is not None and image.layers and self._allowed(repository, time.monotonic()):
            layers, image.layers = image.layers, []
            self._add(repository, (each for each in layers if each != digest))

    async def _examine(self, repository: Repository, answer: ManifestAnswer) -> None:
        """Queue the blobs of a manifest, or only a small config until a layer is requested."""
        manifest = await self._reader.read(answer.digest, answer.data, answer.media_type)
        if self._with_manifest or manifest is None:
            self._add(repository, blobs_of(manifest))
            return
        config = manifest.config
        small = {config.digest} if config is not None and config.size <= SMALL_BYTES else set()
        blobs = blobs_of(manifest)
        self._add(repository, (each for each in blobs if each in small))
        layers = {each.digest for each in manifest.layers}
        image = _Image([each for each in blobs if each in layers and each not in small])
        for layer in image.layers if len(image.layers) > 1 else ():
            self._images.put((repository, layer), image)

    def _add(self, repository: Repository, blobs: Iterable[Digest]) -> None:
        budget = current_budget()
        for digest in blobs:
            if len(self._queue) < QUEUE or digest in self._queue:
                if budget is not None and digest not in self._queue:
                    self._budgets[digest] = budget
                self._queue.setdefault(digest, repository)
            else:
                self._count("dropped")
        for _ in range(min(self._max_workers - self._workers, len(self._queue))):
            self._workers += 1
            self._context.tasks.spawn(self._work(), name="prefetch")

    def stop(self) -> None:
        """Prefetch nothing any more, and end the prefetches that no client has joined."""
        self._cancel_all(math.inf)

    def pause(self) -> None:
        """Start nothing for ROOM_PAUSE: there is less room than recently used blobs need."""
        self._paused_until = max(self._paused_until, time.monotonic() + ROOM_PAUSE)

    def _cancel_all(self, seconds: float) -> None:
        """Clear the queue, end the prefetches that no client has joined, and pause for `seconds`."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
        self._count("dropped", len(self._queue))
        self._queue.clear()
        self._budgets.clear()
        for flight in list(self._unjoined):
            if self._blobs.cancel(flight):
                del self._unjoined[flight]
                self._count("cancelled")

    async def _work(self) -> None:
        """Run one fill after another, until the queue is empty."""
        try:
            while (flight := await self._start_next()) is not None:
                await flight.wait_claimed_or_done()
                if self._unjoined.pop(flight, None) is not None:
                    self._count(_outcome(flight))
        finally:
            self._workers -= 1

    async def _start_next(self) -> Flight | None:
        """Start the fill of the next missing blob; None when the queue is empty. One worker at a time."""
        async with self._starting:
            while self._queue:
                digest = self._next()
                if digest is None:
                    await asyncio.sleep(HOLD_SECONDS)
                    continue
                flight = await self._start(self._queue.pop(digest), digest)
                if flight is not None:
                    return flight
        return None

    async def _start(self, repository: Repository, digest: Digest) -> Flight | None:
        """Start a fill; None when the blob is here, is being filled, or may not be asked for now."""
        if self._blobs.is_filled(digest):
            return None
        try:
            absent = self._context.store.content.take_absent(repository, digest)
            local = (
                await self._context.store.content.look_up(repository, digest)
                if absent is None
                else LocalContent(absent, present=False)
            )
            size = local.link.size if local.link is not None else None
            fits = size is not None and not local.present and await self._fits(size)
        except StoreError as error:
            log.debug("prefetch failed", digest=str(digest), reason=str(error))
            return None
        if local.present:
            return None
        if size is None or not fits or not self._allowed(repository, time.monotonic()):
            self._count("dropped")
            return None
        try:
            self._spend_budget(digest)
            flight = self._blobs.prefetch(repository, digest, local.link)
        except (UpstreamError, RegistryError):  # too many fills wait, or the client's budget is used up
            self._count("dropped")
            return None
        if flight is not None:
            self._unjoined[flight] = size
        return flight

    def _spend_budget(self, digest: Digest) -> None:
        """Have a fill count for the client that it is queued for. RegistryError if that may fetch no more."""
        budget = self._budgets.pop(digest, None)
        set_budget(budget)
        if budget is not None:
            budget.check()

    async def _fits(self, size: int) -> bool:
        """Return whether a blob of `size` bytes fits beside all prefetches, without an eviction."""
        return await self._context.store.room.excess(size + sum(self._unjoined.values())) == 0

    def _next(self) -> Digest | None:
        """Return the first blob in the queue whose upstream has a connection to spare."""
        has_room = {name: self._has_room(self._upstreams[name]) for name in _upstreams_of(self._queue)}
        return next((digest for digest, where in self._queue.items() if has_room[where.upstream]), None)

    def _has_room(self, upstream: Upstream) -> bool:
        """Return whether a connection is left for a client after one more fill has started."""
        unjoined = sum(flight.repository.upstream == upstream.name for flight in self._unjoined)
        return any(
            max(each.slots.active, unjoined) + 2 <= each.registry.max_blob_connections
            for each in upstream.sources
        )

    def _allowed(self, repository: Repository, now: float) -> bool:
        """Return whether a prefetch may start: not while paused, throttled or low on rate limit."""
        upstream = self._upstreams[repository.upstream]
        if not upstream.accounts.budget_level(repository.path).prefetch:
            return False
        healthy = [
            source
            for source in upstream.sources
            # A source's only connection is for clients.
            if source.health.state(now) is BreakerState.CLOSED and source.registry.max_blob_connections > 1
        ]
        if not self._context.store.room.is_writable:
            return False
        unthrottled = bool(healthy) and not any(source.throttled(now) for source in healthy)
        return unthrottled and now >= self._paused_until

    def _count(self, outcome: str, count: int = 1) -> None:
        self._context.metrics.prefetched.labels(outcome).inc(count)


def _upstreams_of(queue: dict[Digest, Repository]) -> set[str]:
    return {repository.upstream for repository in queue.values()}


def _outcome(flight: Flight) -> str:
    """Return how a prefetch ended: joined by a client, stored, or failed."""
    if not flight.prefetch:
        return "joined"
    return "stored" if flight.error is None else "failed"
