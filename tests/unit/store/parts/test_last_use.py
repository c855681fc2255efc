"""The last use of blobs, and those that are being read."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.store import Store

OLD, READ = Digest.of(b"old"), Digest.of(b"read")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "cache")
    yield opened
    await opened.close()


async def last_use(store: Store, digest: Digest) -> float:
    rows = await store.executor.run(store.folder.blobs.table.sizes_and_last_use, [str(digest)])
    return rows[str(digest)][1]


async def test_last_use_is_written_at_a_flush_and_while_a_blob_is_read(store: Store) -> None:
    """A blob that is being read is used at every flush, until its last reader has ended."""
    for data in (b"old", b"read"):
        await store.executor.run(store.folder.writer.put_small_blob, Digest.of(data), data)
        await store.executor.run(store.folder.blobs.table.touch, {Digest.of(data): 1.0})
    ends = [store.content.begin_reading(READ) for _ in range(2)]
    store.content.touch(OLD)
    assert await last_use(store, OLD) == 1.0
    await store.upkeep.flush_last_use()
    assert await last_use(store, OLD) > 1.0
    assert await last_use(store, READ) > 1.0
    ends[0]()
    await store.executor.run(store.folder.blobs.table.touch, {OLD: 1.0, READ: 1.0})
    await store.upkeep.flush_last_use()
    assert (await last_use(store, OLD), await last_use(store, READ) > 1.0) == (1.0, True)
    ends[1]()
    await store.executor.run(store.folder.blobs.table.touch, {READ: 1.0})
    await store.upkeep.flush_last_use()
    assert await last_use(store, READ) == 1.0
