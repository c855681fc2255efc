"""Blobs that a proxy has compressed, decoded on the disk."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.partial.partial import Partial
from mirror.transfer.context import TransferContext
from mirror.transfer.sources.compressed import STEP, decode
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving

REPOSITORY = Repository("docker.io", "library/x")
DATA = bytes(range(256)) * (3 * STEP // 256)
LIMIT = 2 * len(DATA)


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    config = configured(tmp_path / "cache", {"docker.io": fake.url})
    cache = config.cache.model_copy(update={"max_size": Amount(LIMIT)})
    async with serving(config.model_copy(update={"cache": cache})) as mirror:
        yield mirror


async def decoded(mirror: Running, digest: Digest, data: bytes, *encodings: str) -> tuple[int | None, bytes]:
    """Return what `decode` returns for a partial with these bytes, and the bytes that it has then."""
    context: TransferContext = mirror.service.cache._blobs._context
    partial: Partial | None
    partial, _ = await context.store.transfers.lock_partial(REPOSITORY, digest)
    assert partial is not None
    run = context.store.executor.run
    try:
        await run(partial.write, 0, [data], None)
        size = await decode(context, partial, encodings)
        assert partial.chunks is None or partial.chunks.missing() == []
        return size, await run(partial.data_path.read_bytes)
    finally:
        await run(partial.discard)
        await context.store.transfers.release_partial(partial)
        names = await run(lambda: [each.name for each in mirror.service.folder.partials.iterdir()])
        assert names == []


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
@pytest.mark.parametrize("cut", [0, 1, STEP])
async def test_compressed_blob_is_decoded(mirror: Running, encoding: str, cut: int) -> None:
    """One member or several, whatever follows the last one."""
    packed = gzip.compress(DATA[:cut]) + gzip.compress(DATA[cut:], 0) + b"\0" * 100
    assert await decoded(mirror, Digest.of(DATA), packed, "", encoding) == (len(DATA), DATA)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (gzip.compress(DATA), ""),
        (gzip.compress(DATA), "br"),
        (gzip.compress(DATA)[:-1], "gzip"),
        (gzip.compress(DATA)[:1000], "gzip"),
        (gzip.compress(DATA[:-1]), "gzip"),
        (gzip.compress(DATA)[:20] + b"noise" * 100, "gzip"),
        (DATA, "gzip"),
        (b"", "gzip"),
    ],
)
async def test_compressed_blob_that_is_wrong_stays(mirror: Running, data: bytes, encoding: str) -> None:
    """Nothing is changed where no label says gzip, or the decoded bytes are wrong."""
    assert await decoded(mirror, Digest.of(DATA), data, encoding) == (None, data)


async def test_compressed_blob_that_the_cache_cannot_hold_stays(mirror: Running) -> None:
    """A few bytes may stand for gigabytes: no more is written than the cache may hold."""
    bomb = gzip.compress(bytes(4 * LIMIT))
    assert await decoded(mirror, Digest.of(bytes(4 * LIMIT)), bomb, "gzip") == (None, bomb)
