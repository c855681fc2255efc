"""Download of a blob whose size only its end tells."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import NoRoom
from mirror.transfer.context import TransferContext
from mirror.transfer.sources import unsized
from mirror.transfer.sources.unsized import UnsizedDownload
from mirror.upstream.errors import WrongBytes
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, Running, configured, mirror_of, serving
from tests.wire import get

REPOSITORY = Repository("docker.io", "library/x")
DATA = bytes(range(256)) * 10_000
UNSIZED = Fault(chunked=True, no_ranges=True)


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        yield mirror


async def download(mirror: Running, digest: Digest) -> tuple[int, bytes]:
    """Return the size and the bytes on the disk."""
    context: TransferContext = mirror.service.cache._blobs._context
    partial, _ = await context.store.transfers.lock_partial(REPOSITORY, digest)
    assert partial is not None
    upstream = mirror.service._upstreams["docker.io"]
    try:
        size = await UnsizedDownload(context, upstream, REPOSITORY, digest, partial).run()
        assert partial.chunks is not None
        assert partial.chunks.missing() == []
        return size, await context.store.executor.run(partial.data_path.read_bytes)
    finally:
        await context.store.transfers.release_partial(partial)


async def test_unsized_download_that_breaks_is_read_past(fake: FakeRegistry, mirror: Running) -> None:
    digest, fake.piece = fake.add_blob("library/x", DATA), CHUNK
    fake.fault(Fault(chunked=True, no_ranges=True, cut_at=1_500_000), digest)
    fake.fault(UNSIZED, digest)
    assert await download(mirror, digest) == (len(DATA), DATA)
    assert [seen.headers.get("Range") for seen in fake.log] == [None, None]


async def test_unsized_download_of_wrong_bytes_names_the_label(fake: FakeRegistry, mirror: Running) -> None:
    digest = Digest.of(b"other")
    fake.repository("library/x").blobs[str(digest)] = DATA
    fake.fault(Fault(chunked=True, headers={"Content-Encoding": "br"}), digest)
    with pytest.raises(WrongBytes, match="'br'"):
        await download(mirror, digest)


async def test_unsized_download_is_bounded(
    fake: FakeRegistry, mirror: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream that sends without end: no more is written than the cache may hold."""
    digest = fake.add_blob("library/x", DATA)
    fake.fault(UNSIZED, digest)
    monkeypatch.setattr(mirror.service._store.folder.evictor, "size_limit", lambda: 1_200_000)
    with pytest.raises(NoRoom, match="1200000"):
        await download(mirror, digest)


@asynccontextmanager
async def nearly_full(fake: FakeRegistry, cache: Path) -> AsyncIterator[tuple[Running, Digest]]:
    """Serve a mirror that has one blob, with half as much room again."""
    here = fake.add_blob("library/x", bytes(2_000_000))
    config = configured(cache, {"docker.io": fake.url})
    quota = config.cache.model_copy(update={"max_size": Amount(3_000_000)})
    async with serving(config.model_copy(update={"cache": quota})) as mirror:
        assert (await get(mirror.address, f"/v2/library/x/blobs/{here}")).status == 200
        await mirror.landed(here)
        yield mirror, here


async def test_unsized_download_evicts_next_to_nothing(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob of unknown size is kept as far as there is room; what is here stays."""
    monkeypatch.setattr(unsized, "EVICTABLE", 500_000, raising=False)
    digest = fake.add_blob("library/x", DATA)
    fake.fault(UNSIZED, digest)
    async with nearly_full(fake, tmp_path / "cache") as (mirror, here):
        with pytest.raises(NoRoom):
            await download(mirror, digest)
        store = mirror.service._store
        assert await store.executor.run(store.folder.blobs.has, here)


async def test_unsized_download_evicts_for_a_small_blob(fake: FakeRegistry, tmp_path: Path) -> None:
    """A full cache keeps small blobs of unknown size all the same."""
    digest = fake.add_blob("library/x", DATA)
    fake.fault(UNSIZED, digest)
    async with nearly_full(fake, tmp_path / "cache") as (mirror, _):
        assert await download(mirror, digest) == (len(DATA), DATA)
