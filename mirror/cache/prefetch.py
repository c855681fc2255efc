"""Prefetch: what a manifest names is fetched before the client that was given the manifest asks for it.

Config first, then the layers in the order of the manifest, a few at a time, each over one connection. A
client's own request joins the fill, which is then one like any other. What nobody has asked for gives way:
it starts only where a connection is left for a client, never at an upstream that asked for less, allows
little more or does not answer, nor where there is too little room for what is in use, and it ends, to be
resumed, when the disk is in trouble or the mirror stops.

An index fetches nothing: which of its platforms is wanted, the client's next request tells.
"""

import asyncio
import math
import time

from mirror.cache.blobs import BlobCache
from mirror.cache.results import ManifestAnswer, Outcome
from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestInvalid, parse_manifest
from mirror.oci.reference import Repository
from mirror.store.blobs.quota import IN_USE
from mirror.store.errors import StoreError
from mirror.transfer.context import TransferContext
from mirror.transfer.flight import Flight
from mirror.upstream.health import BreakerState
from mirror.upstream.upstream import Upstream
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.log import get_logger
from mirror.util.ttl_cache import TTLCache

log = get_logger(__name__)

# The most blobs that wait for their turn. Images have ten layers, seldom more than a hundred.
QUEUE = 256

# A manifest is not looked at again for this long, in seconds: a hot one costs a lookup, and what could not be
# fetched is not asked for with every request. Not for ever, because blobs are evicted.
REMEMBERED_SECONDS = 600.0
# How many manifests that is remembered of.
REMEMBERED = 4096

# After a fill failed for the disk's sake nothing is fetched ahead for this long, in seconds.
DISK_REST = 60.0

# After something was evicted that was just used nothing is fetched ahead for this long, in seconds: it would
# be evicted before anybody asks for it, or be what something else is evicted for.
ROOM_REST = IN_USE

# How often it is looked whether a connection has become free, in seconds.
HOLD_SECONDS = 0.2


class Prefetch:
    """A queue of blobs, and up to `fill.prefetch` workers, each with a fill that nobody has joined yet."""

    def __init__(self, context: TransferContext, upstreams: UpstreamSet, blobs: BlobCache) -> None:
        self._context = context
        self._upstreams = upstreams
        self._blobs = blobs
        self._most = context.settings.prefetch
        self._queue: dict[Digest, Repository] = {}
        self._unjoined: set[Flight] = set()
        self._workers = 0
        self._starting = asyncio.Lock()
        self._looked_at: TTLCache[tuple[Repository, Digest], bool] = TTLCache(REMEMBERED_SECONDS, REMEMBERED)
        self._rest_until = 0.0
        blobs.on_disk_trouble(lambda: self._give_way(DISK_REST))

    def given(self, repository: Repository, answer: ManifestAnswer) -> None:
        """A client is being given this manifest. Costs a lookup when that has happened a moment ago."""
        # Stale: the upstream has not answered, so it is not asked for what nobody waits for.
        if not self._most or answer.outcome is Outcome.STALE:
            return
        key = (repository, answer.digest)
        if self._looked_at.get(key) or not self._allowed(repository, time.monotonic()):
            return
        self._looked_at.put(key, True)
        for digest in blobs_of(answer):
            if len(self._queue) < QUEUE or digest in self._queue:
                self._queue.setdefault(digest, repository)
            else:
                self._count("dropped")
        for _ in range(min(self._most - self._workers, len(self._queue))):
            self._workers += 1
            self._context.tasks.spawn(self._work(), name="prefetch")

    def stop(self) -> None:
        """Fetch nothing ahead any more, and end what nobody has asked for."""
        self._give_way(math.inf)

    def pause(self) -> None:
        """There is less room than is used: begin nothing for a while."""
        self._rest_until = max(self._rest_until, time.monotonic() + ROOM_REST)

    def _give_way(self, seconds: float) -> None:
        """Forget the queue, end what nobody has asked for, and rest for so long."""
        self._rest_until = max(self._rest_until, time.monotonic() + seconds)
        self._count("dropped", len(self._queue))
        self._queue.clear()
        for flight in list(self._unjoined):
            if self._blobs.cancel(flight):
                self._unjoined.discard(flight)
                self._count("cancelled")

    async def _work(self) -> None:
        """One fill after the other, until the queue is empty."""
        try:
            while (flight := await self._start_next()) is not None:
                await flight.settled()
                if flight in self._unjoined:
                    self._unjoined.discard(flight)
                    self._count(_outcome(flight))
        finally:
            self._workers -= 1

    async def _start_next(self) -> Flight | None:
        """Start the fill of the next blob that is not here; None when there is none. One worker at a time."""
        async with self._starting:
            while self._queue:
                digest = self._next()
                if digest is None:
                    await asyncio.sleep(HOLD_SECONDS)
                    continue
                flight = await self._start(self._queue.pop(digest), digest)
                if flight is not None:
                    self._unjoined.add(flight)
                    return flight
        return None

    async def _start(self, repository: Repository, digest: Digest) -> Flight | None:
        """None when it is here, on its way, or not to be asked for now."""
        try:
            held = await self._context.store.look_up(repository, digest)
        except StoreError as error:
            log.debug("fetching ahead failed", digest=str(digest), reason=str(error))
            return None
        if held.present:
            return None
        if not self._allowed(repository, time.monotonic()):
            self._count("dropped")
            return None
        return self._blobs.fetch_ahead(repository, digest, held.link)

    def _next(self) -> Digest | None:
        """The first in the queue whose upstream has a connection to spare."""
        room = {name: self._has_room(self._upstreams[name]) for name in _upstreams_of(self._queue)}
        return next((digest for digest, where in self._queue.items() if room[where.upstream]), None)

    def _has_room(self, upstream: Upstream) -> bool:
        """Whether a connection is left for a client when one more fill has started."""
        ahead = sum(flight.repository.upstream == upstream.name for flight in self._unjoined)
        return any(
            max(each.active_connections, ahead) + 2 <= each.registry.max_blob_connections
            for each in upstream.sources
        )

    def _allowed(self, repository: Repository, now: float) -> bool:
        """Not while we rest, a rate limit runs out, a source asked for less, or none is well."""
        upstream = self._upstreams[repository.upstream]
        if not upstream.budget_level(repository.path).prefetch:
            return False
        well = [
            source
            for source in upstream.sources
            # A single connection is for clients.
            if source.health.state(now) is BreakerState.CLOSED and source.registry.max_blob_connections > 1
        ]
        if not self._context.store.is_writable:
            return False
        calm = bool(well) and not any(source.throttled(now) for source in well)
        return calm and now >= self._rest_until

    def _count(self, outcome: str, count: int = 1) -> None:
        self._context.metrics.prefetched.labels(outcome).inc(count)


def blobs_of(answer: ManifestAnswer) -> list[Digest]:
    """What a client will ask for after this manifest, in that order.

    Nothing for an index. Not what has `urls`: clients get foreign layers elsewhere.
    """
    try:
        manifest = parse_manifest(answer.data, answer.media_type)
    except ManifestInvalid:
        return []
    if manifest.is_index or manifest.manifests:
        return []
    return [child.digest for child in manifest.children() if not child.urls]


def _upstreams_of(queue: dict[Digest, Repository]) -> set[str]:
    return {repository.upstream for repository in queue.values()}


def _outcome(flight: Flight) -> str:
    """How a fill that was started ahead of need ended, or ceased to be one."""
    if not flight.ahead:
        return "joined"
    return "stored" if flight.error is None else "failed"
