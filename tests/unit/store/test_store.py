"""The store as the cache uses it: links before blobs, and nothing corrupt handed out."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.entries import SMALL_BYTES, Origin
from mirror.store.errors import StoreError
from mirror.store.executor import THREADS
from mirror.store.health import Capability
from mirror.store.links.content import StoredManifest
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Link, TagEntry
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
    await store.put_manifest(X, MANIFEST, {LAYER: Link(size=5)})
    found = await store.open_blob(X, MANIFEST.digest)
    assert (found.blob, found.data) == (None, MANIFEST.data)
    other = await store.open_blob(Y, MANIFEST.digest)
    assert (other.link, other.present, other.blob, other.data) == (None, True, None, None)
    missing = await store.open_blob(X, LAYER)
    assert (missing.link, missing.present, missing.blob) == (Link(size=5), False, None)


async def test_manifest_comes_back_with_its_type(store: Store) -> None:
    """The manifest is there for its repository only; put twice, it is stored once."""
    for _ in range(2):
        await store.put_manifest(X, MANIFEST, {})
    assert await store.manifest(X, MANIFEST.digest) == MANIFEST
    assert await store.manifest(Y, MANIFEST.digest) is None
    assert await store.stats() == (len(MANIFEST.data), 1)
    assert await store.check() == []


async def test_manifest_with_another_digest_is_refused(store: Store) -> None:
    """Content with a wrong digest does not get into the store, whatever the mistake (invariant 1)."""
    with pytest.raises(ValueError, match="do not hash"):
        await store.put_manifest(X, StoredManifest(b"{}", MANIFEST.digest, "x"), {})


async def test_lease_has_one_holder_at_a_time(store: Store, tmp_path: Path) -> None:
    """The holder fills; the next one finds the blob, and no file of the lease is left."""
    content = Content(Link(size=5), b"layer")
    await store.put_manifest(X, MANIFEST, {LAYER: content.link})
    lease = await store.acquire_lease(LAYER)
    assert lease is not None
    assert not lease.present
    assert await store.acquire_lease(LAYER) is None
    await store.put_small_blob(X, lease, content, Origin.PUBLIC)
    again = await store.acquire_lease(LAYER)
    assert again is not None
    assert again.present
    await store.release_lease(again)
    assert (await store.open_blob(X, LAYER)).data == b"layer"
    assert await store.check() == []
    assert await asyncio.to_thread(os.listdir, tmp_path / "cache/partial") == []


async def test_lease_of_a_cancelled_caller_is_released(store: Store) -> None:
    """No process could fill that blob otherwise while this one lives."""
    acquiring = asyncio.ensure_future(store.acquire_lease(LAYER))
    await asyncio.sleep(0)
    acquiring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acquiring
    async with asyncio.timeout(5):
        while await store.acquire_lease(LAYER) is None:
            pass


async def test_leases_and_small_blobs_in_batches(store: Store) -> None:
    """Each counts by itself: wrong content is refused, and its lease is free again (invariant 1)."""
    digests = [Digest.of(bytes([number])) for number in range(20)]
    leases = await asyncio.gather(*(store.acquire_lease(digest) for digest in digests))
    kept = [
        store.put_small_blob(X, lease, Content(Link(size=1), bytes([number])), Origin.PUBLIC)
        for number, lease in enumerate(leases)
        if lease is not None
    ]
    await asyncio.gather(*kept)
    assert await store.stats() == (20, 20)
    lease = await store.acquire_lease(LAYER)
    assert lease is not None
    with pytest.raises(ValueError, match="do not hash"):
        await store.put_small_blob(X, lease, Content(Link(size=5), b"wrong"), Origin.PUBLIC)
    assert await store.acquire_lease(LAYER) is not None
    assert await store.check() == []


async def test_full_disk_is_not_made_fuller(store: Store, tmp_path: Path) -> None:
    """Failed writes leave no file and no lock; confirmed links are remembered."""
    lease = await store.acquire_lease(LAYER)
    assert lease is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.folder.blobs, "add", _no_space)
        await store.put_small_blob(X, lease, Content(Link(size=5), b"layer"), Origin.PUBLIC)
        assert not store.is_writable
        await store.put_manifest(X, MANIFEST, {LAYER: Link(size=5)})
    assert (await store.look_up(X, LAYER)).link == Link(size=5)
    assert (await store.look_up(Y, LAYER)).link is None
    await store.recover()
    assert store.is_writable
    assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "partial") == []


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_partial_without_bytes_leaves_no_file(store: Store, tmp_path: Path) -> None:
    """Requests for digests that no upstream has do not fill the disk with the names of their files."""
    for allocated in (False, True):
        partial, _ = await store.lock_partial(X, LAYER)
        assert partial is not None
        if allocated:
            await store.open_growing_file(partial, 5, 64 * 1024)
        await store.release_partial(partial)
        assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "partial") == []


async def test_partial_discarded_belongs_to_the_next_fill(store: Store, tmp_path: Path) -> None:
    """Between `discard` and `release` another fill may have begun: its files must stay."""
    first, _ = await store.lock_partial(X, LAYER)
    assert first is not None
    await store.discard_partial(first)
    second, _ = await store.lock_partial(X, LAYER)
    assert second is not None
    await store.release_partial(first)
    assert len(await asyncio.to_thread(os.listdir, tmp_path / "cache" / "partial")) == 2
    await store.release_partial(second)


async def test_small_fill_removes_the_partial_of_a_large_one(store: Store, tmp_path: Path) -> None:
    """A fill was interrupted before its size was known, and the blob is now filled in one piece."""
    partial, _ = await store.lock_partial(X, LAYER)
    assert partial is not None
    writer = await store.open_growing_file(partial, 5, 64 * 1024)
    await writer.write(0, [b"la"])
    await store.release_partial(partial)
    lease = await store.acquire_lease(LAYER)
    assert lease is not None
    await store.put_small_blob(X, lease, Content(Link(size=5), b"layer"), Origin.PUBLIC)
    assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "partial") == []


async def test_flipped_bit_is_not_served(store: Store, tmp_path: Path) -> None:
    """The file is quarantined, and the right bytes can come again."""
    await store.put_manifest(X, MANIFEST, {})

    def flip() -> None:
        (path,) = (each for each in (tmp_path / "cache/blobs/sha256").rglob("*") if each.is_file())
        path.chmod(0o600)
        path.write_bytes(bytes([MANIFEST.data[0] ^ 1]) + MANIFEST.data[1:])

    await asyncio.to_thread(flip)
    assert await store.manifest(X, MANIFEST.digest) is None
    assert not (await store.look_up(X, MANIFEST.digest)).present
    await store.put_manifest(X, MANIFEST, {})
    assert await store.manifest(X, MANIFEST.digest) == MANIFEST


async def test_blob_of_a_cancelled_caller_is_closed(store: Store, tmp_path: Path) -> None:
    """A client leaves while its blob is being opened."""
    big = StoredManifest(bytes(SMALL_BYTES + 1), Digest.of(bytes(SMALL_BYTES + 1)), "application/x")
    await store.put_manifest(X, big, {})
    opening = asyncio.ensure_future(store.open_blob(X, big.digest))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    # As many calls as there are threads: the one that opens the blob has ended when all of them have.
    await asyncio.gather(*(store.look_up(X, LAYER) for _ in range(50)))
    async with asyncio.timeout(5):
        while await asyncio.to_thread(opened, tmp_path / "cache" / "blobs" / "sha256"):
            await store.look_up(X, LAYER)


def opened(folder: Path) -> list[Path]:
    """Return the files in a folder that this process has open."""
    links = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return [path for each in links if (path := Path(os.path.realpath(each))).is_relative_to(folder)]


async def test_store_that_cannot_be_created(tmp_path: Path) -> None:
    """The error says which folder, and why."""
    (await asyncio.to_thread((tmp_path / "file").touch))
    with pytest.raises(StoreError, match=r"cannot use the cache folder .*file/cache: .*Not a directory"):
        await Store.open(tmp_path / "file" / "cache")


async def test_store_outlives_the_process(tmp_path: Path) -> None:
    """Everything is found again."""
    first = await Store.open(tmp_path / "cache")
    await first.put_manifest(X, MANIFEST, {LAYER: Link(size=5)})
    await first.manifest(X, MANIFEST.digest)
    await first.close()
    second = await Store.open(tmp_path / "cache")
    assert await second.manifest(X, MANIFEST.digest) == MANIFEST
    assert (await second.look_up(X, LAYER)).link == Link(size=5)
    assert await second.repositories("", "", 10) == [str(X)]
    await second.close()


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
    await quick.put_manifest(X, MANIFEST, {LAYER: Link(size=5)})
    await quick.put_tag(X, Tag("t"), entry)
    forbid_disk(quick, monkeypatch)
    assert await quick.manifest(X, MANIFEST.digest) == MANIFEST
    assert await quick.tag(X, Tag("t")) == entry
    assert (await quick.open_blob(X, MANIFEST.digest)).data == MANIFEST.data
    with pytest.raises(LookupError):
        await quick.manifest(Y, MANIFEST.digest)  # the link is part of the entry (invariant 5)
    monkeypatch.undo()


async def test_memory_follows_writes(quick: Store) -> None:
    """A tag that moves or goes, and a link that changes, show at once."""
    first, second = (TagEntry(str(LAYER), "a", size, 1.0) for size in (1, 2))
    await quick.put_tag(X, Tag("t"), first)
    await quick.put_tag(X, Tag("t"), second)
    assert await quick.tag(X, Tag("t")) == second
    await quick.drop_tag(X, Tag("t"))
    assert await quick.tag(X, Tag("t")) is None
    await quick.put_manifest(Y, MANIFEST, {})
    await quick.links.add(X, MANIFEST.digest, Link(size=len(MANIFEST.data)))
    assert await quick.manifest(X, MANIFEST.digest) is None
    await quick.open_blob(X, MANIFEST.digest)
    assert await quick.manifest(X, MANIFEST.digest) is None
    await quick.put_manifest(X, MANIFEST, {})
    assert await quick.manifest(X, MANIFEST.digest) == MANIFEST


async def test_memory_ignores_a_read_overtaken_by_a_write(quick: Store) -> None:
    """A thread's result may be old when it arrives: the write in between counts."""
    old, new = (TagEntry(str(LAYER), "a", size, 1.0) for size in (1, 2))
    await quick.put_tag(X, Tag("t"), old)
    quick._memory._tags.drop((X, Tag("t")))
    reading = asyncio.ensure_future(quick.tag(X, Tag("t")))
    writing = asyncio.ensure_future(quick.put_tag(X, Tag("t"), new))
    await asyncio.gather(reading, writing)
    assert await quick.tag(X, Tag("t")) == new


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


async def test_housekeeping_is_done_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others only write last-use times; when the housekeeper is gone, another one takes over."""
    first, second = await Store.open(tmp_path), await Store.open(tmp_path)
    tidied: list[str] = []

    def watched(name: str, store: Store) -> None:
        tidy = store.evict

        async def called(keep: Sequence[Digest] = ()) -> None:
            tidied.append(name)
            await tidy(keep)

        monkeypatch.setattr(store, "evict", called)

    watched("first", first)
    watched("second", second)
    for store in (first, second, first):
        await store.run_housekeeping()
    assert tidied == ["first", "first"]
    await first.close()
    await second.run_housekeeping()
    assert tidied == ["first", "first", "second"]
    await second.close()


async def test_memory_forgets_quarantined_content(tmp_path: Path) -> None:
    """The copy in memory is intact, but it would keep the content from being fetched again."""
    store = await Store.open(tmp_path / "cache", CacheSettings(dir=tmp_path / "cache"))
    other = await Store.open(tmp_path / "cache")
    for _ in range(2):
        await store.put_manifest(X, MANIFEST, {})
        assert await store.manifest(X, MANIFEST.digest) == MANIFEST
        await other.executor.run(other.folder.blobs.quarantine, MANIFEST.digest)
        assert await store.manifest(X, MANIFEST.digest) is None
    await other.close()
    await store.close()


async def test_recovery_gives_all_threads_writable_connections(store: Store) -> None:
    """A connection opened while the disk was read-only would stay so, and make others so."""
    databases = [store.folder.blobs.database, store.folder.index.database]
    found: list[int] = []

    def make_read_only() -> None:
        for each in databases:
            each.cache._sql("PRAGMA query_only = ON")

    def query() -> None:
        found.extend(each.cache._sql("PRAGMA query_only").fetchone()[0] for each in databases)

    await store.executor.run_in_every_thread(make_read_only)
    store.health.report_fault(Capability.WRITING, OSError(errno.EROFS, "read-only"))
    await store.recover()
    await store.executor.run_in_every_thread(query)
    assert store.health.faults() == []
    assert found == [0] * 2 * THREADS
