"""A crash between the move of a complete blob into the store and its entry loses no download."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from mirror.store.lock import lock_path
from tests.fakes.content import FakeImage, some_layers
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, mirror_of
from tests.unit.store.test_eviction import X
from tests.wire import get

SIZES = [300_000, LARGE]


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


def blob(digest: Digest) -> str:
    return f"/v2/library/x/blobs/{digest}"


async def pulled(hub: FakeRegistry, cache: Path, size: int) -> FakeImage:
    """Pull an image of one layer, and end the mirror."""
    image = hub.add_image("library/x", "t", some_layers(1, size))
    async with mirror_of(hub, cache) as mirror:
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
        assert (await get(mirror.address, blob(image.layers[0]))).body == image.layers_data[0]
        await mirror.landed(image.layers[0])
    return image


def lose_entry(cache: Path, digest: Digest, wrong_byte_at: int | None = None) -> Path:
    """Leave the state of a crash after the move and before the entry; return the file."""
    with closing(CacheDirectory(cache)) as folder:
        row = folder.blobs.table.row(str(digest))
        assert row is not None
        folder.blobs.drop_entry(row)
        path = folder.blobs.folder / row.name
    if wrong_byte_at is not None:
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(wrong_byte_at)
            byte = file.read(1)[0]
            file.seek(wrong_byte_at)
            file.write(bytes([byte ^ 1]))
    return path


def kept(cache: Path, digest: Digest) -> list[str]:
    """Return the blob files of a digest, and all that is in the folder of the partials."""
    files = [path.name for path in (cache / "blobs").glob(f"sha256/*/{digest.encoded[2:]}.*")]
    return [*files, *os.listdir(cache / "partial")]


@pytest.mark.parametrize("size", SIZES)
async def test_crash_before_the_entry_costs_no_download(hub: FakeRegistry, tmp_path: Path, size: int) -> None:
    """The file that bears the digest is verified and adopted; the upstream gets a HEAD only."""
    image = await pulled(hub, tmp_path / "cache", size)
    layer = image.layers[0]
    await asyncio.to_thread(lose_entry, tmp_path / "cache", layer)
    asked = hub.requests("GET", layer)
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        for _ in range(2):
            assert (await get(mirror.address, blob(layer))).body == image.layers_data[0]
            await mirror.landed(layer)
        assert hub.requests("GET", layer) == asked
        assert await mirror.service._store.content.missing_blobs([layer]) == []
        assert len(await asyncio.to_thread(kept, tmp_path / "cache", layer)) == 1


async def test_crash_before_the_entry_costs_nothing_offline(hub: FakeRegistry, tmp_path: Path) -> None:
    """An upstream that cannot be reached is no reason to lose what is here and linked."""
    image = await pulled(hub, tmp_path / "cache", LARGE)
    layer = image.layers[0]
    await asyncio.to_thread(lose_entry, tmp_path / "cache", layer)
    async with mirror_of(hub, tmp_path / "cache", server={"offline": True}) as mirror:
        for _ in range(2):
            assert (await get(mirror.address, blob(layer))).body == image.layers_data[0]
            await mirror.landed(layer)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("at", [0, -1])
async def test_crash_that_lost_bytes_costs_a_download(
    hub: FakeRegistry, tmp_path: Path, size: int, at: int
) -> None:
    """A file whose bytes are not those of its name is never served as a whole, and fetched again."""
    image = await pulled(hub, tmp_path / "cache", size)
    layer = image.layers[0]
    await asyncio.to_thread(lose_entry, tmp_path / "cache", layer, at % size)
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        try:
            first = (await get(mirror.address, blob(layer))).body
        except asyncio.IncompleteReadError:
            first = b""  # cut before its end
        assert first in (b"", image.layers_data[0])
        await mirror.landed(layer)
        assert (await get(mirror.address, blob(layer))).body == image.layers_data[0]
        await mirror.landed(layer)
        assert len(await asyncio.to_thread(kept, tmp_path / "cache", layer)) == 1


def test_crash_before_the_entry_is_continued_for_followers(tmp_path: Path) -> None:
    """Readers in another process that follow the killed fill go on with the same file."""
    data = os.urandom(300_000)
    digest = Digest.of(data)
    with closing(CacheDirectory(tmp_path)) as folder:
        partial, _ = folder.fills.lock_partial(X, digest)
        assert partial is not None
        chunks = folder.fills.allocate(partial, len(data), 65536)
        remote = folder.fills.open_remote_partial(digest)
        assert remote is not None
        partial.write(0, [data], None)
        chunks.record(0, len(data))
        chunks.set_verified()
        folder.writer.adopt(partial.verified_file())
        partial.release()
        assert lock_path(digest, folder.partials).exists()
        lose_entry(tmp_path, digest)
        again, local = folder.fills.lock_partial(X, digest)
        assert again is not None
        assert not local.present
        assert again.is_continuation_of(remote)
        assert (again.chunks is not None and again.chunks.missing()) == []
        remote.close()
        again.release()
