"""Sources of another kind than an upstream's endpoint take part in a download."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from mirror.config.schema import FillSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.memory.store import MemoryStore
from mirror.transfer.blob_source import BlobSource, BlobSources
from mirror.transfer.download import Download
from mirror.transfer.download_order import DownloadOrder
from mirror.transfer.sources.rest import RestPolicy, RestWay
from mirror.transfer.transfer import Transfer
from mirror.upstream.body import BlobBody, BodyReaders
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import SourceHealth
from mirror.upstream.http.range_support import RangeSupport
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.sources.slots import SourceSlots
from mirror.util.slots import SlotPool
from mirror.util.tasks import Tasks

DATA = bytes(range(256)) * 4096
DIGEST = Digest.of(DATA)
REPOSITORY = Repository("docker.io", "library/x")
CHUNK = 64 * 1024


class MemorySource:
    """A source that has blobs in memory, and counts what it was asked for."""

    weight = 1.0

    def __init__(self, name: str, data: bytes | None) -> None:
        self.name = name
        self.health = SourceHealth()
        self.slots = SourceSlots(SlotPool(16), 16)
        self.ranges = RangeSupport()
        self.concurrency = 1
        self.asked: list[tuple[int, int | None]] = []
        self._data = data

    def throttled(self, now: float) -> bool:
        return False

    def suspect(self) -> None: ...

    def report_corruption(self, what: str) -> None: ...

    @asynccontextmanager
    async def open_blob(
        self, repository: str, digest: Digest, span: tuple[int, int | None], location: DirectLocation
    ) -> AsyncIterator[BlobBody]:
        self.asked.append(span)
        if self._data is None:
            raise UpstreamError(Failure.NOT_FOUND, f"{self.name} has no {digest}")
        start, stop = span
        part = self._data[start:stop]

        async def chunks() -> AsyncGenerator[bytes, None]:
            for at in range(0, len(part), 10_000):
                yield part[at : at + 10_000]

        whole = len(part) == len(self._data)
        readers = BodyReaders(chunks, lambda: None)
        yield BlobBody(self.name, readers, (start, start + len(part)), len(self._data), whole=whole)


class Pool:
    """The sources of an upstream, one of which is the upstream's own."""

    name = "docker.io"

    def __init__(self, own: BlobSource, *others: BlobSource) -> None:
        self.own = own
        self.speakers = [own]
        self.sources = [*others, own]

    def usable_sources(self) -> list[BlobSource]:
        return self.sources

    def best_speakers(self) -> list[BlobSource]:
        return self.speakers


async def download(tasks: Tasks, sources: BlobSources, *, size: int | None) -> bool:
    """Return whether a download brought the whole blob."""
    store = await MemoryStore.open()
    partial, _ = await store.transfers.lock_partial(REPOSITORY, DIGEST)
    assert partial is not None
    transfer = Transfer(DIGEST, REPOSITORY)
    settings = FillSettings(chunk_size=CHUNK, parallel_above=0, parallel=4)
    order = DownloadOrder(REPOSITORY, DIGEST, size=size, missing=None, linked=True, settings=settings)
    rest = RestPolicy(RestWay.ALWAYS, transfer.demand, lambda: 0.0)
    async with aclosing(Download(tasks, sources, order, transfer, rest)) as running:
        running.begin()
        assert await running.announced_size() == len(DATA)
        writer = await store.transfers.open_growing_file(partial, len(DATA), CHUNK)
        await running.run(writer)
        await writer.verifier.hash_contiguous()
    complete = writer.verifier.complete() is not None
    await store.transfers.release_partial(partial)
    await store.close()
    return complete


async def test_blob_source_of_another_kind_is_downloaded_from(tasks: Tasks) -> None:
    """All bytes come from the one that is usable, each once."""
    upstream, tier = MemorySource("docker.io", None), MemorySource("tier", DATA)
    assert await download(tasks, Pool(upstream, tier), size=len(DATA))
    assert sum((stop or len(DATA)) - start for start, stop in tier.asked) == len(DATA)


async def test_blob_source_without_the_blob_is_not_asked_again(tasks: Tasks) -> None:
    """An empty tier costs one answer; the upstream brings the blob."""
    upstream, tier = MemorySource("docker.io", DATA), MemorySource("tier", None)
    assert await download(tasks, Pool(upstream, tier), size=None)
    assert len(tier.asked) == 1
    assert upstream.asked
