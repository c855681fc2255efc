"""Hosted repositories for the event loop: no failing disk is taken for a miss."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.errors import StoreError
from mirror.store.health import Capability
from mirror.store.hosted.errors import ContentMissing
from mirror.store.hosted.hosted_store import HostedStore
from mirror.store.hosted.pushes import NO_QUOTAS, PushedManifest
from mirror.store.metadata.index import Link
from mirror.store.store import Store

APP, OTHER = Repository("office", "app"), Repository("office", "other")
UPSTREAM = Repository("docker.io", "library/x")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "cache")
    yield store
    await store.close()


@pytest.fixture
async def hosted(store: Store) -> HostedStore:
    found = HostedStore(store)
    await found.read(found.index.names.register, ["office"], [])
    return found


async def commit(hosted: HostedStore, data: bytes) -> Digest:
    path, digest = hosted.folder.partials / "incoming", Digest.of(data)
    await hosted.read(path.write_bytes, data)
    await hosted.commit_blob(APP, VerifiedFile(digest, path, len(data)), NO_QUOTAS)
    return digest


async def test_pushed_blob_is_private_to_its_registry(hosted: HostedStore, store: Store) -> None:
    """A manifest of an upstream that names a pushed blob opens nothing (invariant 5)."""
    digest = await commit(hosted, b"secret")
    await store.metadata.links.add(UPSTREAM, digest, Link(None, 6))
    found = await store.content.open_blob(UPSTREAM, digest)
    assert (found.is_open, found.unconfirmed) == (False, True)
    assert not await hosted.may_mount(UPSTREAM, digest)
    assert await hosted.may_mount(APP, digest)


async def test_content_of_an_account_is_not_mounted(hosted: HostedStore, store: Store) -> None:
    """Private content of an upstream stays in its repository; public content can be mounted."""
    digest = await commit(hosted, b"data")
    await store.metadata.links.add(UPSTREAM, digest, Link(None, 4, confirmed=1.0, account=True))
    assert not await hosted.may_mount(UPSTREAM, digest)
    await store.metadata.links.add(UPSTREAM, digest, Link(None, 4, confirmed=2.0))
    assert await hosted.may_mount(UPSTREAM, digest)
    assert set(await hosted.sources(digest, 10)) == {APP, UPSTREAM}
    assert await hosted.link_blob(OTHER, digest, NO_QUOTAS)
    assert not await hosted.link_blob(OTHER, Digest.of(b"none"), NO_QUOTAS)


async def test_refused_manifest_leaves_nothing_retained(hosted: HostedStore) -> None:
    push = PushedManifest(APP, Digest.of(b"m"), b"m", OCI_MANIFEST, blobs=(Digest.of(b"none"),))
    with pytest.raises(ContentMissing):
        await hosted.put_manifest(push)
    assert await hosted.read(hosted.folder.blobs.retention.totals) == (0, 0)


async def test_tag_whose_manifest_is_lost_is_unknown(hosted: HostedStore) -> None:
    """HEAD does not promise what GET cannot give."""
    push = PushedManifest(APP, Digest.of(b"m"), b"m", OCI_MANIFEST, (Tag("latest"),))
    await hosted.put_manifest(push)
    assert (await hosted.tag(APP, Tag("latest"))) is not None
    await hosted.read(hosted.folder.blobs.quarantine, push.digest)
    assert (await hosted.tag(APP, Tag("latest"))) is None


async def test_failing_index_is_no_miss(hosted: HostedStore, store: Store) -> None:
    """After a miss a client would push again, or pull another image."""
    store.health.report_fault(Capability.METADATA, OSError(5, "Input/output error"))
    with pytest.raises(StoreError, match="in trouble"):
        await hosted.open_blob(APP, Digest.of(b"x"))
    with pytest.raises(StoreError, match="in trouble"):
        await hosted.manifest(APP, Digest.of(b"x"))


async def test_pushes_at_once_keep_a_blob_once(hosted: HostedStore) -> None:
    """Twenty uploads of one base: one file, and one entry."""
    data, digest = b"base", Digest.of(b"base")

    async def push(number: int) -> None:
        path = hosted.folder.partials / f"incoming-{number}"
        await hosted.read(path.write_bytes, data)
        repository = Repository("office", f"app{number}")
        await hosted.commit_blob(repository, VerifiedFile(digest, path, len(data)), NO_QUOTAS)

    await asyncio.gather(*map(push, range(20)))
    shard = hosted.folder.blobs.folder / digest.algorithm / digest.encoded[:2]
    assert len(await hosted.read(os.listdir, shard)) == 1
    assert await hosted.read(hosted.folder.blobs.check) == []


async def test_pushes_of_manifests_are_written_together(hosted: HostedStore) -> None:
    """A refused one changes nothing for the others; each has its own result."""

    def push(number: int) -> PushedManifest:
        data = b"%d" % number
        lacking = (Digest.of(b"none"),) if number % 5 == 0 else ()
        return PushedManifest(APP, Digest.of(data), data, OCI_MANIFEST, (Tag(f"t{number}"),), lacking)

    results = await asyncio.gather(*(hosted.put_manifest(push(n)) for n in range(20)), return_exceptions=True)
    assert [isinstance(each, ContentMissing) for each in results] == [n % 5 == 0 for n in range(20)]
    tags = await hosted.tags(APP, "", 100)
    assert tags == sorted(f"t{n}" for n in range(20) if n % 5)
    size, _ = await hosted.read(hosted.folder.blobs.retention.totals)
    assert (await hosted.room.held(["office"])) == {"office": size}
