"""Leases, partials, and the adoption of what fills bring."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import Origin
from mirror.store.links.content import StoredManifest
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Link
from mirror.store.store import Store

X, Y = Repository("docker.io", "library/x"), Repository("docker.io", "library/y")
DATA = b'{"schemaVersion":2}'
MANIFEST = StoredManifest(DATA, Digest.of(DATA), "application/x", Link("application/x", len(DATA), 1.0))
LAYER = Digest.of(b"layer")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "cache")
    yield opened
    await opened.close()


async def test_lease_has_one_holder_at_a_time(store: Store, tmp_path: Path) -> None:
    """The holder fills; the next one finds the blob, and no file of the lease is left."""
    content = Content(Link(size=5), b"layer")
    await store.content.put_manifest(X, MANIFEST, {LAYER: content.link})
    lease = await store.transfers.leases.acquire_blob(LAYER)
    assert lease is not None
    assert not lease.present
    assert await store.transfers.leases.acquire_blob(LAYER) is None
    await store.transfers.put_small_blob(X, lease, content, Origin.PUBLIC)
    again = await store.transfers.leases.acquire_blob(LAYER)
    assert again is not None
    assert again.present
    await store.transfers.leases.release(again)
    assert (await store.content.open_blob(X, LAYER)).data == b"layer"
    assert await store.upkeep.check() == []
    assert await asyncio.to_thread(os.listdir, tmp_path / "cache/partial") == []


async def test_lease_of_a_cancelled_caller_is_released(store: Store) -> None:
    """No process could fill that blob otherwise while this one lives."""
    acquiring = asyncio.ensure_future(store.transfers.leases.acquire_blob(LAYER))
    await asyncio.sleep(0)
    acquiring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acquiring
    async with asyncio.timeout(5):
        while await store.transfers.leases.acquire_blob(LAYER) is None:
            pass


async def test_leases_and_small_blobs_in_batches(store: Store) -> None:
    """Each counts by itself: wrong content is refused, and its lease is free again (invariant 1)."""
    digests = [Digest.of(bytes([number])) for number in range(20)]
    leases = await asyncio.gather(*(store.transfers.leases.acquire_blob(digest) for digest in digests))
    kept = [
        store.transfers.put_small_blob(X, lease, Content(Link(size=1), bytes([number])), Origin.PUBLIC)
        for number, lease in enumerate(leases)
        if lease is not None
    ]
    await asyncio.gather(*kept)
    assert await store.upkeep.stats() == (20, 20)
    lease = await store.transfers.leases.acquire_blob(LAYER)
    assert lease is not None
    with pytest.raises(ValueError, match="do not hash"):
        await store.transfers.put_small_blob(X, lease, Content(Link(size=5), b"wrong"), Origin.PUBLIC)
    assert await store.transfers.leases.acquire_blob(LAYER) is not None
    assert await store.upkeep.check() == []


async def test_partial_without_bytes_leaves_no_file(store: Store, tmp_path: Path) -> None:
    """Requests for digests that no upstream has do not fill the disk with the names of their files."""
    for allocated in (False, True):
        partial, _ = await store.transfers.lock_partial(X, LAYER)
        assert partial is not None
        if allocated:
            await store.transfers.open_growing_file(partial, 5, 64 * 1024)
        await store.transfers.release_partial(partial)
        assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "partial") == []


async def test_partial_discarded_belongs_to_the_next_fill(store: Store, tmp_path: Path) -> None:
    """Between `discard` and `release` another fill may have begun: its files must stay."""
    first, _ = await store.transfers.lock_partial(X, LAYER)
    assert first is not None
    await store.transfers.discard_partial(first)
    second, _ = await store.transfers.lock_partial(X, LAYER)
    assert second is not None
    await store.transfers.release_partial(first)
    assert len(await asyncio.to_thread(os.listdir, tmp_path / "cache" / "partial")) == 2
    await store.transfers.release_partial(second)


async def test_small_fill_removes_the_partial_of_a_large_one(store: Store, tmp_path: Path) -> None:
    """A fill was interrupted before its size was known, and the blob is now filled in one piece."""
    partial, _ = await store.transfers.lock_partial(X, LAYER)
    assert partial is not None
    writer = await store.transfers.open_growing_file(partial, 5, 64 * 1024)
    await writer.write(0, [b"la"])
    await store.transfers.release_partial(partial)
    lease = await store.transfers.leases.acquire_blob(LAYER)
    assert lease is not None
    await store.transfers.put_small_blob(X, lease, Content(Link(size=5), b"layer"), Origin.PUBLIC)
    assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "partial") == []
