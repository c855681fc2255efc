"""One mirror of the simulation: real claims, places and sources, with lines in place of sockets and disks."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, cast

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.engines import Engines
from mirror.shared.probe import Fitness
from mirror.shared.tier import SharedTier
from mirror.transfer.download import PAUSES
from mirror.transfer.shared.coordination import Coordination
from mirror.transfer.shared.lead_window import LeadWindow
from mirror.transfer.shared.peers import PeerClients
from mirror.transfer.shared.publisher import UPLOADS
from mirror.transfer.shared.shared_source import SharedSource
from mirror.upstream.body import BlobBody, BodyReaders
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http_client import DirectLocation
from mirror.util.callbacks import ignore
from mirror.util.tasks import Tasks
from mirror.web.peers.listener import TURNS
from tests.bench.swarm.lines import Line, LineCut, transfer
from tests.bench.swarm.site import MirrorLeases, Site
from tests.bench.swarm.upstream import ROUND_TRIP, GrowingBlob, UpstreamFill

# Bytes of one flow on a line, and of one part of an upload, of which several are on their way.
PIECE = 1024 * 1024
PARTS = 4

# Seconds after which a mirror that follows asks for its next span.
SPAN_SECONDS = 2.0
ZEROS = memoryview(bytes(PIECE))


async def fit() -> Fitness:
    """Return that the engines can do all."""
    return Fitness()


class Mirror:
    """A mirror, whose client pulls the image."""

    def __init__(self, site: Site, number: int) -> None:
        self.site = site
        self.address = f"http://10.{number >> 16}.{number >> 8 & 255}.{number & 255}:5002"
        self.down, self.up = (Line(site.loop, site.plan.line) for _ in range(2))
        site.mirrors[self.address] = self
        self.leases = MirrorLeases(site)
        self.tasks = Tasks()
        self.tier = SharedTier(
            Engines("s3://simulated", site.store, self.leases, fit), 2.0, site.metrics, site.loop.time
        )
        self.tier.address = self.address
        self.peers = PeerClients(lambda address: cast(Any, Peer(self, address)), self.tasks)
        self.blobs: dict[Digest, GrowingBlob] = {}
        self.uploads = asyncio.Semaphore(UPLOADS)
        self.windows: dict[Digest, LeadWindow] = {}
        self.turns = asyncio.Semaphore(TURNS)

    async def pull(self, begin: float) -> None:
        """Pull all layers, some at a time, from `begin` on."""
        await asyncio.sleep(begin)
        self.tier.start()
        while not self.tier.usable:  # noqa: ASYNC110  # a background task
            await asyncio.sleep(0)
        turns = asyncio.Semaphore(self.site.plan.at_once)

        async def layer(digest: Digest) -> None:
            async with turns:
                await self.fill(digest)

        await asyncio.gather(*(layer(each) for each in self.site.layers))
        self.site.figures.finished.append(self.site.loop.time())

    async def fill(self, digest: Digest) -> None:
        """Fill one blob, as `SharedFill` does."""
        blob = self.blobs[digest] = GrowingBlob(self.site.plan.layer_bytes)
        self.windows[digest] = LeadWindow(ignore, lambda: 1, self.site.loop.time)
        coordination = Coordination(
            self.tier, digest, lambda _: self.tier.usable, follows=True, clock=self.site.loop.time
        )
        client = cast(Any, Store(self))
        source = SharedSource(client, coordination, self.peers, self.site.slots)
        failures = 0
        while blob.missing():
            try:
                async with source.open_blob("", digest, (blob.prefix, None), DirectLocation()) as body:
                    async for chunk in body.chunks():
                        blob.add(Span(blob.prefix, blob.prefix + len(chunk)))
            except UpstreamError as error:
                if error.failure is Failure.OFFLINE:
                    await self._lead(digest, blob, coordination)
                    return
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1

    async def _lead(self, digest: Digest, blob: GrowingBlob, coordination: Coordination) -> None:
        """Fetch from the upstream; with the claim, write the blob to the object store meanwhile."""
        self.site.figures.fills_upstream += 1
        claim, before = coordination.claim, blob.received
        self.site.on_lead(self, digest, blob)
        streamed = claim is not None and not self.uploads.locked()
        upload = self.tasks.spawn(self._upload(digest, blob), name="upload") if streamed else None
        try:
            await asyncio.sleep(ROUND_TRIP)  # a HEAD, which opens the link
            await UpstreamFill(blob, self.site.loop.time, self.site.plan.wan, self.windows[digest]).run()
        finally:
            self.site.figures.upstream_bytes += blob.received - before
        if claim is not None:
            behind = self._publish(digest, blob, upload, claim.release)
            self.tasks.spawn(behind, name="write behind")

    async def _publish(self, digest: Digest, blob: GrowingBlob, upload: Any, release: Any) -> None:
        await (upload or self._upload(digest, blob))
        release()

    async def _upload(self, digest: Digest, blob: GrowingBlob) -> None:
        async with self.uploads:
            offset = 0
            while offset < blob.size:
                if blob.prefix - offset < min(PIECE, blob.size - offset):
                    await blob.changed.wait()
                    continue
                length = min(blob.prefix - offset, PARTS * PIECE)
                parts = [min(PIECE, length - start) for start in range(0, length, PIECE)]
                await asyncio.gather(*(transfer(each, self.up, self.site.store_line) for each in parts))
                offset += length
            self.site.store.stored.add(digest)

    async def kill(self) -> None:
        """End all at once, without a word to the coordinator."""
        self.leases.dead = True
        self.up.cut()
        self.down.cut()
        for blob in self.blobs.values():
            blob.wake()
        await self.tasks.close()
        await self.tier.close()


class Store:
    """The object store as a client: `TierClient` without bytes."""

    name = "simulated"

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self.max_blob_connections = 32

    @asynccontextmanager
    async def open_blob(
        self, path: str, digest: Digest, start: int, stop: int | None
    ) -> AsyncIterator[BlobBody]:
        site, mirror = self._mirror.site, self._mirror

        async def chunks() -> AsyncGenerator[bytes]:
            for offset in range(start, site.plan.layer_bytes, PIECE):
                length = min(PIECE, site.plan.layer_bytes - offset)
                await _sent(length, site.store_line, mirror.down)
                yield cast(bytes, ZEROS[:length])

        yield _body(chunks, start, site.plan.layer_bytes)


class Peer:
    """Another mirror as a client: `PeerClient` without bytes. Its file is followed."""

    def __init__(self, mirror: Mirror, address: str) -> None:
        self._mirror = mirror
        self._other = mirror.site.mirrors[address]
        self._behind: dict[Digest, int] = {}

    def behind(self, digest: Digest) -> int | None:
        return self._behind.get(digest)

    @asynccontextmanager
    async def open_blob(
        self, path: str, digest: Digest, start: int, stop: int | None
    ) -> AsyncIterator[BlobBody]:
        other, mirror = self._other, self._mirror
        blob = other.blobs.get(digest)
        if other.leases.dead or blob is None:
            raise UpstreamError(Failure.UNREACHABLE, "another mirror does not answer")

        async def chunks() -> AsyncGenerator[bytes]:
            offset, window, next_span = start, other.windows[digest], 0.0
            with window.following(start):
                while offset < blob.size:
                    if (now := mirror.site.loop.time()) >= next_span:
                        self._behind[digest], next_span = window.best - offset, now + SPAN_SECONDS
                    if (length := min(blob.prefix - offset, PIECE)) <= 0:
                        await blob.changed.wait()
                        if other.leases.dead:
                            raise UpstreamError(Failure.UNREACHABLE, "another mirror was killed")
                        continue
                    async with nullcontext() if offset >= window.best else other.turns:
                        await _sent(length, other.up, mirror.down)
                    yield cast(bytes, ZEROS[:length])
                    offset += length
                    window.advance(offset)

        yield _body(chunks, start, blob.size)

    async def close(self) -> None:
        """Close nothing."""


async def _sent(length: int, *lines: Line) -> None:
    try:
        await transfer(length, *lines)
    except LineCut:
        raise UpstreamError(Failure.UNREACHABLE, "another mirror was killed") from None


def _body(chunks: Callable[[], AsyncGenerator[bytes]], start: int, size: int) -> BlobBody:
    return BlobBody("simulated", BodyReaders(chunks, lambda: None), (start, None), size, whole=False)
