"""Blobs and manifests: links before blobs, and nothing corrupt handed out."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import SMALL_BYTES
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


async def test_blob_needs_a_link(store: Store) -> None:
    """Every repository learns that a blob is present; only one with a link gets its content (invariant 5)."""
    await store.content.put_manifest(X, MANIFEST, {LAYER: Link(size=5)})
    found = await store.content.open_blob(X, MANIFEST.digest)
    assert (found.blob, found.data) == (None, MANIFEST.data)
    other = await store.content.open_blob(Y, MANIFEST.digest)
    assert (other.link, other.present, other.blob, other.data) == (None, True, None, None)
    missing = await store.content.open_blob(X, LAYER)
    assert (missing.link, missing.present, missing.blob) == (Link(size=5), False, None)


async def test_manifest_comes_back_with_its_type(store: Store) -> None:
    """The manifest is there for its repository only; put twice, it is stored once."""
    for _ in range(2):
        await store.content.put_manifest(X, MANIFEST, {})
    assert await store.content.manifest(X, MANIFEST.digest) == MANIFEST
    assert await store.content.manifest(Y, MANIFEST.digest) is None
    assert await store.upkeep.stats() == (len(MANIFEST.data), 1)
    assert await store.upkeep.check() == []


async def test_manifest_with_another_digest_is_refused(store: Store) -> None:
    """Content with a wrong digest does not get into the store, whatever the mistake (invariant 1)."""
    with pytest.raises(ValueError, match="do not hash"):
        await store.content.put_manifest(X, StoredManifest(b"{}", MANIFEST.digest, "x"), {})


async def test_flipped_bit_is_not_served(store: Store, tmp_path: Path) -> None:
    """The file is quarantined, and the right bytes can come again."""
    await store.content.put_manifest(X, MANIFEST, {})

    def flip() -> None:
        (path,) = (each for each in (tmp_path / "cache/blobs/sha256").rglob("*") if each.is_file())
        path.chmod(0o600)
        path.write_bytes(bytes([MANIFEST.data[0] ^ 1]) + MANIFEST.data[1:])

    await asyncio.to_thread(flip)
    assert await store.content.manifest(X, MANIFEST.digest) is None
    assert not (await store.content.look_up(X, MANIFEST.digest)).present
    await store.content.put_manifest(X, MANIFEST, {})
    assert await store.content.manifest(X, MANIFEST.digest) == MANIFEST


async def test_blob_of_a_cancelled_caller_is_closed(store: Store, tmp_path: Path) -> None:
    """A client leaves while its blob is being opened."""
    big = StoredManifest(bytes(SMALL_BYTES + 1), Digest.of(bytes(SMALL_BYTES + 1)), "application/x")
    await store.content.put_manifest(X, big, {})
    opening = asyncio.ensure_future(store.content.open_blob(X, big.digest))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    # As many calls as there are threads: the one that opens the blob has ended when all of them have.
    await asyncio.gather(*(store.content.look_up(X, LAYER) for _ in range(50)))
    async with asyncio.timeout(5):
        while await asyncio.to_thread(opened, tmp_path / "cache" / "blobs" / "sha256"):
            await store.content.look_up(X, LAYER)


def opened(folder: Path) -> list[Path]:
    """Return the files in a folder that this process has open."""
    links = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return [path for each in links if (path := Path(os.path.realpath(each))).is_relative_to(folder)]


async def test_memory_forgets_quarantined_content(tmp_path: Path) -> None:
    """The copy in memory is intact, but it would keep the content from being fetched again."""
    store = await Store.open(tmp_path / "cache", CacheSettings(dir=tmp_path / "cache"))
    other = await Store.open(tmp_path / "cache")
    for _ in range(2):
        await store.content.put_manifest(X, MANIFEST, {})
        assert await store.content.manifest(X, MANIFEST.digest) == MANIFEST
        await other.executor.run(other.folder.blobs.quarantine, MANIFEST.digest)
        assert await store.content.manifest(X, MANIFEST.digest) is None
    await other.close()
    await store.close()


async def test_absent_blob_of_a_manifest_is_told_once(store: Store) -> None:
    """The next caller looks at the disk: the blob has come, or a fill has failed."""
    await store.content.put_manifest(X, MANIFEST, {LAYER: Link(size=5)})
    assert store.content.take_absent(Y, LAYER) is None
    assert store.content.take_absent(X, MANIFEST.digest) is None
    assert store.content.take_absent(X, LAYER) == Link(size=5)
    assert store.content.take_absent(X, LAYER) is None


async def test_absent_blob_that_has_come_is_not_told(store: Store) -> None:
    """Neither one that was here before its manifest, nor one that came behind it."""
    digests = [Digest.of(data) for data in (b"before", b"behind")]
    children = {digest: Link(size=6) for digest in digests}
    for digest, data in zip(digests, (b"before", b"behind"), strict=True):
        lease = await store.transfers.leases.acquire_blob(digest)
        assert lease is not None
        await store.transfers.put_small_blob(X, lease, Content(Link(size=6), data))
        await store.content.put_manifest(X, MANIFEST, children)
        assert store.content.take_absent(X, digest) is None
    assert store.content.take_absent(X, digests[1]) is None


async def test_absent_blob_is_forgotten_when_a_link_is_withdrawn(store: Store) -> None:
    """A manifest may have been removed with all that it names."""
    await store.content.put_manifest(X, MANIFEST, {LAYER: Link(size=5)})
    await store.metadata.links.withdraw(X, MANIFEST.digest)
    assert store.content.take_absent(X, LAYER) is None
