"""Room on a disk that is full."""

import asyncio
import errno
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


async def test_full_disk_is_not_made_fuller(store: Store, tmp_path: Path) -> None:
    """Failed writes leave no file and no lock; confirmed links are remembered."""
    lease = await store.transfers.leases.acquire_blob(LAYER)
    assert lease is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.folder.blobs, "add", _no_space)
        await store.transfers.put_small_blob(X, lease, Content(Link(size=5), b"layer"), Origin.PUBLIC)
        assert not store.room.is_writable
        await store.content.put_manifest(X, MANIFEST, {LAYER: Link(size=5)})
    assert (await store.content.look_up(X, LAYER)).link == Link(size=5)
    assert (await store.content.look_up(Y, LAYER)).link is None
    await store.upkeep.recover()
    assert store.room.is_writable
    assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "partial") == []


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
