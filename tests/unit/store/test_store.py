"""The store of a folder: opened, closed, and opened again."""

import asyncio
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.store.links.content import StoredManifest
from mirror.store.metadata.index import Link
from mirror.store.store import Store

X, Y = Repository("docker.io", "library/x"), Repository("docker.io", "library/y")
DATA = b'{"schemaVersion":2}'
MANIFEST = StoredManifest(DATA, Digest.of(DATA), "application/x", Link("application/x", len(DATA), 1.0))
LAYER = Digest.of(b"layer")


async def test_store_that_cannot_be_created(tmp_path: Path) -> None:
    """The error says which folder, and why."""
    (await asyncio.to_thread((tmp_path / "file").touch))
    with pytest.raises(StoreError, match=r"cannot use the cache folder .*file/cache: .*Not a directory"):
        await Store.open(tmp_path / "file" / "cache")


async def test_store_outlives_the_process(tmp_path: Path) -> None:
    """Everything is found again."""
    first = await Store.open(tmp_path / "cache")
    await first.content.put_manifest(X, MANIFEST, {LAYER: Link(size=5)})
    await first.content.manifest(X, MANIFEST.digest)
    await first.close()
    second = await Store.open(tmp_path / "cache")
    assert await second.content.manifest(X, MANIFEST.digest) == MANIFEST
    assert (await second.content.look_up(X, LAYER)).link == Link(size=5)
    assert await second.metadata.repositories("", "", 10) == [str(X)]
    await second.close()


async def test_store_keeps_the_mode_of_a_shared_folder(tmp_path: Path) -> None:
    """The cache has mode 0700 after --cache-dir /srv, and /srv has the mode it had."""

    def prepare() -> None:
        (tmp_path / "somebody's file").touch()
        tmp_path.chmod(0o755)

    await asyncio.to_thread(prepare)
    await (await Store.open(tmp_path)).close()
    modes = await asyncio.to_thread(
        lambda: [each.stat().st_mode & 0o777 for each in (tmp_path, tmp_path / "blobs")]
    )
    assert modes == [0o755, 0o700]
