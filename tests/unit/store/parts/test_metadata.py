"""Tags and links, with copies in memory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.links.content import StoredManifest
from mirror.store.metadata.index import Link, TagEntry
from mirror.store.store import Store

X, Y = Repository("docker.io", "library/x"), Repository("docker.io", "library/y")
DATA = b'{"schemaVersion":2}'
MANIFEST = StoredManifest(DATA, Digest.of(DATA), "application/x", Link("application/x", len(DATA), 1.0))
LAYER = Digest.of(b"layer")


@pytest.fixture
async def quick(tmp_path: Path) -> AsyncIterator[Store]:
    """Open a store with some memory."""
    opened = await Store.open(
        tmp_path / "cache", CacheSettings.model_validate({"dir": tmp_path, "memory": "1MiB"})
    )
    yield opened
    await opened.close()


def forbid_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise LookupError("the disk was asked")

    monkeypatch.setattr(store.executor, "start", start)


async def test_memory_answers_for_small_content_in_use(quick: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests, tag entries and small blobs, lately read or written: no thread, no SQLite, no file."""
    entry = TagEntry(str(MANIFEST.digest), MANIFEST.media_type, len(MANIFEST.data), 1.0)
    await quick.content.put_manifest(X, MANIFEST, {LAYER: Link(size=5)})
    await quick.metadata.put_tag(X, Tag("t"), entry)
    forbid_disk(quick, monkeypatch)
    assert await quick.content.manifest(X, MANIFEST.digest) == MANIFEST
    assert await quick.metadata.tag(X, Tag("t")) == entry
    assert (await quick.content.open_blob(X, MANIFEST.digest)).data == MANIFEST.data
    with pytest.raises(LookupError):
        await quick.content.manifest(Y, MANIFEST.digest)  # the link is part of the entry (invariant 5)
    monkeypatch.undo()


async def test_memory_follows_writes(quick: Store) -> None:
    """A tag that moves or goes, and a link that changes, show at once."""
    first, second = (TagEntry(str(LAYER), "a", size, 1.0) for size in (1, 2))
    await quick.metadata.put_tag(X, Tag("t"), first)
    await quick.metadata.put_tag(X, Tag("t"), second)
    assert await quick.metadata.tag(X, Tag("t")) == second
    await quick.metadata.drop_tag(X, Tag("t"))
    assert await quick.metadata.tag(X, Tag("t")) is None
    await quick.content.put_manifest(Y, MANIFEST, {})
    await quick.metadata.links.add(X, MANIFEST.digest, Link(size=len(MANIFEST.data)))
    assert await quick.content.manifest(X, MANIFEST.digest) is None
    await quick.content.open_blob(X, MANIFEST.digest)
    assert await quick.content.manifest(X, MANIFEST.digest) is None
    await quick.content.put_manifest(X, MANIFEST, {})
    assert await quick.content.manifest(X, MANIFEST.digest) == MANIFEST


async def test_memory_ignores_a_read_overtaken_by_a_write(quick: Store) -> None:
    """A thread's result may be old when it arrives: the write in between counts."""
    old, new = (TagEntry(str(LAYER), "a", size, 1.0) for size in (1, 2))
    await quick.metadata.put_tag(X, Tag("t"), old)
    quick._memory._tags.drop((X, Tag("t")))
    reading = asyncio.ensure_future(quick.metadata.tag(X, Tag("t")))
    writing = asyncio.ensure_future(quick.metadata.put_tag(X, Tag("t"), new))
    await asyncio.gather(reading, writing)
    assert await quick.metadata.tag(X, Tag("t")) == new
