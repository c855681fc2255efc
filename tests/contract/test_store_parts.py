"""One suite for both stores: on a cache folder (SQLite, files), and in memory.

The engines of the shared tier have their suite in test_shared_engines.py.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.entries import SMALL_BYTES, EvictedBlob, Origin
from mirror.store.errors import NoRoom, StoreError
from mirror.store.links.content import StoredManifest
from mirror.store.lock import name_key
from mirror.store.memory.store import MemoryStore
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Gone, Link, ReferrersEntry, TagEntry
from mirror.store.metadata.visibility import PublicMark
from mirror.store.partial.partial import Partial
from mirror.store.parts.interfaces import StoreParts
from mirror.store.store import Store
from tests.fakes.content import image_manifest

X, Y = Repository("docker.io", "library/x"), Repository("docker.io", "library/y")
LIMIT = 4 * 1024 * 1024
LARGE = bytes(SMALL_BYTES + 1)


@pytest.fixture(params=["folder", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreParts]:
    """An empty store with a quota of LIMIT bytes."""
    opened: StoreParts
    if request.param == "memory":
        opened = await MemoryStore.open(LIMIT)
    else:
        values = {"dir": tmp_path / "cache", "max_size": LIMIT, "min_free": 0}
        opened = await Store.open(tmp_path / "cache", CacheSettings.model_validate(values))
    yield opened
    await opened.close()


def manifest_of(*layers: bytes) -> tuple[StoredManifest, dict[Digest, Link]]:
    """A confirmed manifest, and the links that its layers get by it."""
    data = image_manifest(b"{}", list(layers))
    link = Link("application/vnd.oci.image.manifest.v1+json", len(data), 1.0)
    links = {Digest.of(each): Link(size=len(each)) for each in layers}
    return StoredManifest(data, Digest.of(data), str(link.media_type), link, Origin.PUBLIC), links


async def keep(store: StoreParts, data: bytes, origin: Origin = Origin.PUBLIC) -> Digest:
    """Keep a blob as a small fill does, linked to X by its upstream."""
    digest, link = Digest.of(data), Link(size=len(data), confirmed=1.0)
    lease = await store.transfers.leases.acquire_blob(digest)
    assert lease is not None
    await store.transfers.put_small_blob(X, lease, Content(link, data), origin)
    await store.metadata.links.add(X, digest, link)
    return digest


async def fill(store: StoreParts, data: bytes) -> Digest:
    """Keep a blob as a large fill does, by a growing file."""
    digest = Digest.of(data)
    partial, _ = await store.transfers.lock_partial(X, digest, public=True)
    assert partial is not None
    writer = await store.transfers.open_growing_file(partial, len(data), 65536, public=True)
    hashing = asyncio.ensure_future(writer.verifier.hash_contiguous())
    await writer.write(0, [data])
    await hashing
    verified = writer.verifier.complete()
    assert verified is not None
    await store.transfers.adopt(replace(verified, origin=Origin.PUBLIC))
    await store.metadata.links.add(X, digest, Link(size=len(data), confirmed=1.0))
    await store.transfers.discard_partial(partial)
    await store.transfers.release_partial(partial)
    return digest


def entry_of(digest: Digest, gone: Gone | None = None) -> TagEntry:
    return TagEntry(str(digest), "application/x", 5, 1.0, gone=gone)


async def test_tags_are_read_as_last_written(store: StoreParts) -> None:
    """An entry is of one repository and tag; a tag with further types is another one, and is not listed."""
    metadata, tag = store.metadata, Tag("t")
    first, second = entry_of(Digest.of(b"1")), entry_of(Digest.of(b"2"))
    assert await metadata.tag(X, tag) is None
    await metadata.put_tag(X, tag, first)
    await metadata.put_tag(X, tag, second)
    await metadata.put_tag(X, Tag("t", ("odd/type",)), first)
    await metadata.put_tag(X, Tag("a"), first)
    assert (await metadata.tag(X, tag), await metadata.read_tag_again(X, tag)) == (second, second)
    assert await metadata.tag(Y, tag) is None
    assert await metadata.known_tags(X, "", 9) == ["a", "t"]
    assert (await metadata.known_tags(X, "a", 9), await metadata.known_tags(X, "", 1)) == (["t"], ["a"])
    await metadata.drop_tag(X, tag)
    await metadata.drop_tag(X, tag)
    assert (await metadata.tag(X, tag), await metadata.read_tag_again(X, tag)) == (None, None)


async def test_gone_tags_are_those_whose_manifests_are_here(store: StoreParts) -> None:
    """A mark alone keeps nothing."""
    manifest, links = manifest_of()
    await store.content.put_manifest(X, manifest, links)
    for name, digest, gone in (
        ("b", manifest.digest, Gone(1.0, 2.0)),
        ("a", manifest.digest, Gone(1.0, 2.0)),
        ("evicted", Digest.of(b"?"), Gone(1.0, 2.0)),
        ("fresh", manifest.digest, None),
    ):
        await store.metadata.put_tag(X, Tag(name), entry_of(digest, gone))
    assert [name for name, _ in await store.metadata.gone_tags(X)] == ["a", "b"]
    assert await store.metadata.gone_tags(Y) == []


async def test_links_are_written_over_known_ones(store: StoreParts) -> None:
    """A name never replaces a confirmation; a withdrawn link is gone, and another repository's stays."""
    links, digest = store.metadata.links, Digest.of(b"layer")
    await links.add(X, digest, Link("type", 5, 7.0))
    await links.add(X, digest, Link(size=9))
    await links.add(Y, digest, Link(size=9))
    assert await links.read_again(X, digest) == Link("type", 5, 7.0)
    assert (await store.content.look_up(X, digest)).link == Link("type", 5, 7.0)
    await links.withdraw(X, digest)
    assert (await links.read_again(X, digest), await links.read_again(Y, digest)) == (None, Link(size=9))
    assert await store.metadata.repositories("docker.io/", "", 9) == [str(X), str(Y)]
    assert await store.metadata.repositories("docker.io/", str(X), 9) == [str(Y)]
    assert await store.metadata.repositories("quay.io/", "", 9) == []


async def test_manifest_is_first_seen_once(store: StoreParts) -> None:
    """A later look does not change the time, nor does another repository's."""
    links, digest = store.metadata.links, Digest.of(b"manifest")
    assert await links.first_seen(X, digest, 100.0) == 100.0
    assert (await links.first_seen(X, digest, 200.0), await links.first_seen(Y, digest, 300.0)) == (
        100.0,
        300.0,
    )


async def test_referrers_and_public_marks_are_kept(store: StoreParts) -> None:
    """An empty list is an answer too; a withdrawn mark changes the number of removals."""
    digest, marks = Digest.of(b"subject"), store.metadata.visibility
    assert await store.metadata.referrers(X, digest) is None
    await store.metadata.put_referrers(X, digest, ReferrersEntry("[]", 5.0))
    assert await store.metadata.referrers(X, digest) == ReferrersEntry("[]", 5.0)
    assert await store.metadata.referrers(Y, digest) is None
    for each in (X, Y):
        await marks.put(each, PublicMark(1.0))
    assert (await marks.mark(X), list(await marks.between(str(X), str(X)))) == (PublicMark(1.0), [str(X)])
    before = marks.removals()
    await marks.withdraw(X)
    assert (await marks.mark(X), marks.removals() != before) == (None, True)


async def test_content_needs_a_link_that_opens_it(store: StoreParts) -> None:
    """Invariant 5: every repository learns that a blob is present, and only a link opens the blob."""
    digest = await keep(store, b"private", Origin.PRIVATE)
    await store.metadata.links.add(Y, digest, Link(size=7))
    assert (await store.content.open_blob(X, digest)).data == b"private"
    named = await store.content.open_blob(Y, digest)
    assert (named.unconfirmed, named.is_open, named.present) == (True, False, True)
    other = await store.content.open_blob(Repository("quay.io", "z"), digest)
    assert (other.link, other.present, other.is_open) == (None, True, False)
    assert store.content.opens(Link(size=7), Origin.PUBLIC)
    assert not store.content.opens(Link(size=7), Origin.PRIVATE)


async def test_manifest_comes_back_with_its_type_and_links(store: StoreParts) -> None:
    """Put twice, it is stored once; its children are linked; bytes of another digest are refused."""
    manifest, links = manifest_of(b"layer")
    for _ in range(2):
        await store.content.put_manifest(X, manifest, links)
    found = await store.content.manifest(X, manifest.digest)
    assert found is not None
    assert (found.data, found.media_type) == (manifest.data, manifest.media_type)
    assert await store.content.manifest(Y, manifest.digest) is None
    layer = await store.content.look_up(X, Digest.of(b"layer"))
    assert (layer.link, layer.present) == (Link(size=5), False)
    assert await store.content.manifest(X, Digest.of(b"layer")) is None
    assert (await store.upkeep.stats(), await store.upkeep.check()) == ((len(manifest.data), 1), [])
    assert await store.content.read_blob(manifest.digest, len(manifest.data) - 1) is None
    assert await store.content.missing_blobs([manifest.digest, Digest.of(b"?")]) == [Digest.of(b"?")]
    with pytest.raises(ValueError, match="hash"):
        await store.content.put_manifest(X, StoredManifest(b"{}", Digest.of(b"other"), "x"), {})


async def test_blob_missing_with_its_manifest_is_taken_once(store: StoreParts) -> None:
    """The link comes without a look at the disk: once, to the manifest's repository, of a missing blob."""
    (manifest, links), small = manifest_of(b"layer", b"small"), Digest.of(b"small")
    await keep(store, b"small")
    await store.content.put_manifest(X, manifest, links)
    assert [store.content.take_absent(X, each) for each in (small, manifest.digest)] == [None, None]
    assert store.content.take_absent(Y, Digest.of(b"layer")) is None
    assert store.content.take_absent(X, Digest.of(b"layer")) == Link(size=5)
    assert store.content.take_absent(X, Digest.of(b"layer")) is None


async def test_large_blob_is_filled_and_opened_as_a_file(store: StoreParts) -> None:
    """The blob grows in a partial, is adopted when it is verified, and has a descriptor to send."""
    digest = await fill(store, LARGE)
    opened = await store.content.open_blob(X, digest)
    any_ = await store.content.open_any(digest)
    assert opened.blob is not None
    assert any_ is not None
    with opened.blob.file, any_.file:
        assert (opened.blob.size, opened.blob.origin) == (len(LARGE), Origin.PUBLIC)
        assert opened.blob.file.read() == any_.file.read() == LARGE
        assert opened.blob.file.fileno() != any_.file.fileno()
    assert await store.transfers.growing_since(0.0) == []
    assert await store.content.open_any(Digest.of(b"?")) is None


async def test_partial_is_resumed_and_followed(store: StoreParts) -> None:
    """The lock is one fill's at a time; followers see the partial, and the next fill continues it."""
    digest, before = Digest.of(LARGE), time.time() - 60
    partial, local = await store.transfers.lock_partial(X, digest)
    assert partial is not None
    assert (local.present, await store.transfers.open_remote_partial(digest)) == (False, None)
    writer = await store.transfers.open_growing_file(partial, len(LARGE), 65536)
    await writer.write(0, [LARGE[:100_000]])
    assert (await store.transfers.lock_partial(X, digest))[0] is None
    assert await store.transfers.growing_since(before) == [digest]
    remote = await store.transfers.open_remote_partial(digest)
    assert remote is not None
    assert remote.chunks.received() == 100_000
    remote.close()
    await store.transfers.release_partial(partial)
    again, _ = await store.transfers.lock_partial(X, digest)
    assert isinstance(again, Partial)
    assert (await store.transfers.allocate(again, len(LARGE), 65536)).received() == 100_000
    await store.transfers.discard_partial(again)
    await store.transfers.release_partial(again)
    assert await store.transfers.growing_since(0.0) == []


async def test_leases_have_one_holder(store: StoreParts) -> None:
    """A lease of a blob tells whether the blob is there; a released one is free; wrong bytes are refused."""
    leases, digest, key = store.transfers.leases, Digest.of(b"small"), name_key("docker.io/library/x:t")
    lease, name = await leases.acquire_blob(digest), await leases.acquire(key)
    assert lease is not None
    assert name is not None
    assert (lease.present, await leases.acquire_blob(digest), await leases.acquire(key)) == (
        False,
        None,
        None,
    )
    with pytest.raises(ValueError, match="hash"):
        await store.transfers.put_small_blob(X, lease, Content(Link(size=5), b"other"))
    await leases.release(name)
    await keep(store, b"small")
    for each in (await leases.acquire_blob(digest), await leases.acquire(key)):
        assert each is not None
        await leases.release(each)
    found = await leases.acquire_blob(digest)
    assert found is not None
    assert found.present
    await leases.release(found)


async def test_quota_evicts_the_least_recently_used(store: StoreParts) -> None:
    """A blob that is being read, or was just added, stays; one that can never fit is refused."""
    evicted: list[EvictedBlob] = []
    store.room.on_evicted = evicted.extend
    digests = [await fill(store, bytes([number]) * (LIMIT // 4 - 4096)) for number in range(4)]
    assert (await store.room.excess(), await store.room.excess(LIMIT) > 0) == (0, True)
    assert await store.room.size_limit() == LIMIT
    assert await store.room.left() <= 4 * 4096
    end = store.content.begin_reading(digests[0])
    reading = await store.content.open_any(digests[0])
    assert reading is not None
    digests.append(await fill(store, b"5" * (LIMIT // 4 - 4096)))
    with reading.file:
        assert [each.digest for each in evicted] == [digests[1]]
    end()
    assert await store.content.missing_blobs(digests) == [digests[1]]
    huge = Digest.of(b"huge")
    await store.metadata.links.add(X, huge, Link(size=2 * LIMIT, confirmed=1.0))
    with pytest.raises(NoRoom):
        await store.transfers.lock_partial(X, huge)
    await store.metadata.links.add(X, huge, Link(size=1, confirmed=1.0))
    partial, _ = await store.transfers.lock_partial(X, huge)
    assert partial is not None
    await store.transfers.release_partial(partial)


async def test_quota_spares_what_is_pinned(store: StoreParts) -> None:
    """A pinned tag keeps its manifest and its layers; without the pin they go like all else."""
    layer = b"1" * (LIMIT // 4)
    manifest, links = manifest_of(layer)
    await store.content.put_manifest(X, manifest, links)
    await store.metadata.put_tag(X, Tag("kept"), entry_of(manifest.digest))
    await store.upkeep.configure_pins([Pin.parse("docker.io/library/x:kept")])
    pinned = await fill(store, layer)
    others = [await fill(store, bytes([number]) * (LIMIT // 4)) for number in range(5, 10)]
    assert await store.content.missing_blobs([manifest.digest, pinned]) == []
    assert len(await store.content.missing_blobs(others)) >= 2
    await store.upkeep.configure_pins([])
    for number in range(10, 15):
        await fill(store, bytes([number]) * (LIMIT // 4))
    assert await store.content.missing_blobs([pinned]) == [pinned]


async def test_writing_is_down_until_it_recovers(store: StoreParts) -> None:
    """A failure that is reported counts until housekeeping finds the store well."""
    assert store.room.is_writable
    store.room.report_write_failure(StoreError("a full disk"))
    assert not store.room.is_writable
    assert await store.upkeep.claim_housekeeping()
    await store.upkeep.run_housekeeping()
    assert store.room.is_writable
    await store.upkeep.remove_old_partials()
    await store.upkeep.flush_last_use()
    assert await store.upkeep.check() == []
