"""Evictions: which blobs go, in which order, and which never do."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.reference import Repository
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import SMALL_BYTES, EvictedBlob, EvictionReason
from mirror.store.blobs.headroom import SHARE, UNUSED_SECONDS
from mirror.store.blobs.quota import IN_USE
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import NoRoom, PinTooLarge
from mirror.store.lock import lock_if_unread
from mirror.store.metadata.index import Link
from mirror.store.partial.partial import Partial
from tests.disks import MIB, fill_up, tmpfs
from tests.fakes.cached import age, open_folder, put_image

X = Repository("docker.io", "library/x")
LONG_AGO = time.time() - 2 * IN_USE


def folder_with(tmp_path: Path, **settings: object) -> CacheDirectory:
    """Open a cache folder with settings, and without `min_free` unless the settings have it."""
    values = {"min_free": Amount(), **settings}
    return CacheDirectory(tmp_path / "cache", CacheSettings.model_validate({"dir": tmp_path, **values}))


def put(folder: CacheDirectory, tmp_path: Path, data: bytes) -> tuple[Digest, int]:
    """Adopt data as a fill does; return the digest and the excess after that."""
    digest = Digest.of(data)
    path = tmp_path / digest.encoded
    path.write_bytes(data)
    return digest, folder.writer.adopt(VerifiedFile(digest, path, len(data)))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[CacheDirectory]:
    """Open a folder with room for a thousand bytes."""
    folder = folder_with(tmp_path, max_size=1000)
    yield folder
    folder.close()


def test_eviction_removes_least_recently_used_first(small: CacheDirectory, tmp_path: Path) -> None:
    """An adoption returns the excess, and an eviction removes the oldest blobs until the rest fits."""
    digests = [put(small, tmp_path, bytes([number]) * 300)[0] for number in range(3)]
    small.blobs.table.touch({digest: LONG_AGO + number for number, digest in enumerate(digests)})
    last, excess = put(small, tmp_path, bytes(400))
    assert excess == 300
    assert [each.digest for each in small.evictor.evict()] == digests[:1]
    assert (small.evictor.excess(), small.evictor.evict()) == (0, [])
    assert small.blobs.has(last)


def test_eviction_takes_blobs_in_use_last(tmp_path: Path) -> None:
    """Blobs in use go too, so that no burst fills the disk; not a blob that is read, nor one just added."""
    folder = folder_with(tmp_path, max_size=2 * SMALL_BYTES)
    data = [bytes([number]) * (SMALL_BYTES + 1) for number in range(4)]
    old, read, idle, last = (put(folder, tmp_path, each)[0] for each in data)
    folder.blobs.table.touch({old: LONG_AGO})
    reader = folder.blobs.open(read)
    assert reader is not None
    with reader.file:
        assert [each.digest for each in folder.evictor.evict([last])] == [old, idle]
        assert folder.evictor.excess() == 2
    assert [each.digest for each in folder.evictor.evict([last])] == [read]
    folder.close()


def test_eviction_takes_small_blobs_in_use_last_of_all(tmp_path: Path) -> None:
    """Manifests and configs of images that are being pulled go last; but even they do not fill the disk."""
    folder = folder_with(tmp_path, max_size=SMALL_BYTES)
    small = [put(folder, tmp_path, bytes([number]) * 100_000)[0] for number in range(3)]
    large, excess = put(folder, tmp_path, bytes(SMALL_BYTES + 1))
    assert excess > SMALL_BYTES
    assert [each.digest for each in folder.evictor.evict()] == [large, small[0]]
    assert folder.evictor.excess() == 0
    folder.close()


def test_eviction_spares_readers_of_a_finished_fill(tmp_path: Path) -> None:
    """Readers of a download, here or in another process, hold the blob that the download becomes."""
    folder, other = (folder_with(tmp_path, max_size=SMALL_BYTES) for _ in range(2))
    data = bytes(SMALL_BYTES + 1)
    digest = Digest.of(data)
    partial, _ = folder.fills.lock_partial(X, digest)
    assert partial is not None
    partial.allocate(len(data), SMALL_BYTES)  # without a look at the quota
    followed = other.fills.open_remote_partial(digest)
    assert followed is not None
    readers = [partial.open_reader(), followed.open_reader()]
    followed.close()
    partial.write(0, [data], None)
    folder.writer.adopt(partial.verified_file())
    partial.discard()
    partial.release()
    for each in readers:
        with each:
            assert (folder.evictor.excess(), folder.evictor.evict(), other.evictor.evict()) == (1, [], [])
    assert [each.digest for each in folder.evictor.evict()] == [digest]
    folder.close()
    other.close()


def interrupted(folder: CacheDirectory, number: int) -> Partial:
    """Begin a fill that received 100 kB, long ago; its lock is held."""
    partial, _ = folder.fills.lock_partial(X, Digest.of(bytes([number])))
    assert partial is not None
    partial.allocate(100_000, 65536).record(0, 100_000)
    partial.write(0, [bytes(100_000)], None)
    os.utime(partial.data_path, (LONG_AGO, LONG_AGO))
    return partial


def test_eviction_removes_old_partials_before_blobs_in_use(tmp_path: Path) -> None:
    """Partials go until the rest fits; not one that is being filled, or was recently and may be resumed."""
    folder = folder_with(tmp_path, max_size=420_000)
    running, young, *old = (interrupted(folder, number) for number in range(4))
    os.utime(young.data_path)
    for each in (young, *old):
        each.release()
    first, _ = put(folder, tmp_path, b"1" * 100_000)
    assert folder.evictor.evict() == []
    assert sum(each.data_path.exists() for each in old) == 1
    for data in (b"2" * 100_000, b"3" * 100_000):
        put(folder, tmp_path, data)
    assert [each.digest for each in folder.evictor.evict()] == [first]
    assert [each.data_path.exists() for each in (running, young, *old)] == [True, True, False, False]
    running.release()
    folder.close()


def test_eviction_spares_blobs_for_a_partial_that_no_quota_can_hold(tmp_path: Path) -> None:
    """The download of a blob above the quota, killed long ago, costs no other blob."""
    folder = folder_with(tmp_path, max_size=90_000)
    large = interrupted(folder, 1)
    digest, _ = put(folder, tmp_path, b"1" * 10_000)
    folder.blobs.table.touch({digest: LONG_AGO})
    assert [each.digest for each in folder.evictor.evict()] == [digest]  # a running fill is spared
    digest, _ = put(folder, tmp_path, b"2" * 10_000)
    folder.blobs.table.touch({digest: LONG_AGO})
    large.release()
    assert folder.evictor.evict() == []
    assert (folder.blobs.has(digest), large.data_path.exists()) == (True, False)
    folder.close()


def test_eviction_by_age_spares_blobs_in_use(tmp_path: Path) -> None:
    """Age removes no blob that was used a moment ago, however short `max_age` is."""
    folder = folder_with(tmp_path, max_age=1)
    digest, _ = put(folder, tmp_path, b"data")
    folder.blobs.table.touch({digest: time.time() - IN_USE / 2})
    assert folder.evictor.evict() == []
    folder.close()


def test_excess_counts_what_fills_have_written(tmp_path: Path) -> None:
    """A running fill counts with the bytes that have come, not with the size that it may reach."""
    folder = folder_with(tmp_path, max_size=1_000_000)
    put(folder, tmp_path, b"1" * 500_000)
    partial, _ = folder.fills.lock_partial(X, Digest.of(b"other"))
    assert partial is not None
    folder.fills.allocate(partial, 900_000, 65536)
    assert (folder.evictor.excess(), folder.evictor.excess(400_000)) == (0, 0)
    assert 100_000 <= folder.evictor.excess(600_000) <= 110_000
    partial.write(0, [b"2" * 700_000], None)
    assert 200_000 <= folder.evictor.excess() <= 220_000
    partial.release()
    folder.close()


def test_allocation_is_refused_for_what_could_not_be_kept(tmp_path: Path) -> None:
    """A blob may take all that is not pinned. What a manifest says of the size of pinned content counts for
    nothing as long as the content is not here.
    """
    folder = open_folder(tmp_path / "cache", max_size=1_000_000)
    pinned, other = (put_image(folder, X, str(number), [bytes([number]) * 300_000]) for number in (1, 2))
    folder.pinning.pin(Pin.parse("x:1"))
    claimed = put_image(folder, X, "3", [b"3" * 300_000])
    assert folder.index.link(X, claimed[2]) is not None
    folder.index.add_links(X, {claimed[2]: Link(size=1 << 50)})
    folder.pins.add(Pin.parse("x:3"))
    folder.blobs.remove(claimed[2])
    partial, _ = folder.fills.lock_partial(X, Digest.of(b"other"))
    assert partial is not None
    with pytest.raises(NoRoom):
        folder.fills.allocate(partial, 720_000, 65536)
    folder.fills.allocate(partial, 680_000, 65536)
    assert all(folder.blobs.has(digest) for digest in (*pinned, *other))
    partial.release()
    folder.close()


def test_lock_is_refused_for_a_claim_that_could_not_be_kept(tmp_path: Path) -> None:
    """A size that a manifest names ends the fill before the upstream is asked, and leaves no file."""
    folder = folder_with(tmp_path, max_size=1_000_000)
    digest = Digest.of(b"large")
    folder.index.add_links(X, {digest: Link(size=1_000_001)})
    with pytest.raises(NoRoom):
        folder.fills.lock_partial(X, digest)
    assert list(folder.partials.iterdir()) == []
    folder.close()


def test_eviction_by_age_removes_unused_blobs(tmp_path: Path) -> None:
    """An unused blob goes by age even though there is room."""
    folder = folder_with(tmp_path, max_age=3600)
    old, young = (put(folder, tmp_path, data)[0] for data in (b"old", b"young"))
    folder.blobs.table.touch({old: time.time() - 3700, young: time.time() - 3500})
    assert folder.evictor.evict() == [EvictedBlob(old, 3, EvictionReason.AGE)]
    folder.close()


def test_eviction_leaves_min_free(tmp_path: Path) -> None:
    """Room stays free on a file system that others fill too."""
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    folder = folder_with(tmp_path, min_free=2 * free)
    digest, excess = put(folder, tmp_path, b"data")
    assert excess > 0
    assert [each.digest for each in folder.evictor.evict()] == [digest]
    folder.close()


def test_eviction_spares_pinned_content(tmp_path: Path) -> None:
    """Neither quota nor age removes pinned content; content that only its neighbours need goes instead."""
    folder = open_folder(tmp_path / "cache", max_size=5000, max_age=40)
    first, second = (put_image(folder, X, str(number), [bytes([number]) * 3000]) for number in (1, 2))
    folder.pinning.pin(Pin.parse("x:1"))
    age(folder, *first, *second)
    evicted = {each.digest for each in folder.evictor.evict()}
    assert evicted == set(second) - set(first)
    assert all(folder.blobs.has(each) for each in first)
    folder.close()


def test_eviction_removes_content_once_unpinned(tmp_path: Path) -> None:
    """Unpinned content goes, although an eviction skipped it as pinned a moment ago."""
    folder = open_folder(tmp_path / "cache", max_size=1)
    image = put_image(folder, X, "1", [b"a"])
    age(folder, *image)
    folder.pins.add(Pin.parse("x:1"))
    assert folder.evictor.evict() == folder.evictor.evict() == []
    folder.pinning.unpin(ImagePattern.parse("x:1"))
    assert [each.digest for each in folder.evictor.evict()] == image[:2]
    folder.close()


def test_eviction_warns_once_of_a_pattern_above_the_quota(tmp_path: Path) -> None:
    """A pattern that comes to match too much is kept, and the log says so once."""
    folder = open_folder(tmp_path / "cache", max_size=5000)
    folder.pinning.pin(Pin.parse("x:*"))
    for number in range(3):
        age(folder, *put_image(folder, X, str(number), [bytes([number]) * 3000]))
    with structlog.testing.capture_logs() as logs:
        assert folder.evictor.evict() == folder.evictor.evict() == []
    assert [each["event"] for each in logs] == ["pins take more than there is room for"]
    folder.close()


def test_eviction_warns_of_configured_pins_above_the_quota(tmp_path: Path) -> None:
    """Configured pins are kept, and logged with the numbers; one more by command is refused."""
    folder = open_folder(tmp_path / "cache", max_size=5000)
    images = [put_image(folder, X, str(number), [bytes([number]) * 3000]) for number in range(2)]
    age(folder, *images[0], *images[1])
    folder.pinning.configure_pins([Pin.parse("x:*")])
    with structlog.testing.capture_logs() as logs:
        assert folder.evictor.evict() == []
    assert [(each["pinned"] > 6000, each["allowed"]) for each in logs] == [(True, 5000)]
    with pytest.raises(PinTooLarge):
        folder.pinning.pin(Pin.parse("x:1"))
    folder.close()


def test_eviction_sees_pins_of_other_processes(tmp_path: Path) -> None:
    """A pin that another process added a moment ago counts."""
    folder, other = (open_folder(tmp_path / "cache", max_size=1) for _ in range(2))
    image = put_image(folder, X, "1", [b"a"])
    age(folder, *image)
    assert folder.pins.pinned_sizes() == {}
    other.pins.add(Pin.parse("x:1"))
    assert folder.evictor.evict() == []
    folder.close()
    other.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 8 MiB."""
    with tmpfs(tmp_path / "disk", 8 * MIB) as place:
        yield place


def put_unused(folder: CacheDirectory, place: Path, number: int) -> Digest:
    """Adopt a blob of a megabyte that is the first to go; on the disk of the folder, where a fill writes."""
    digest, _ = put(folder, place, bytes([number]) * MIB)
    folder.blobs.table.touch({digest: LONG_AGO + number})
    return digest


@pytest.mark.needs("unshare", root=True)
def test_eviction_works_without_a_free_byte(disk: Path) -> None:
    """The entry goes before the file, and the log that takes its removal has its room already."""
    folder = folder_with(disk)
    digests = [put_unused(folder, disk, number) for number in range(3)]
    fill_up(disk / "others")
    assert [each.digest for each in folder.evictor.make_room(2 * MIB)] == digests
    assert folder.evictor.room().free >= 3 * MIB
    folder.close()


@pytest.mark.needs("unshare", root=True)
def test_room_is_judged_when_a_running_eviction_is_over(disk: Path) -> None:
    """Content that another eviction is removing is neither free nor evictable, until it is gone."""
    folder, other = folder_with(disk), folder_with(disk)
    digest = put_unused(folder, disk, 1)
    fill_up(disk / "others")
    row = folder.blobs.table.row(str(digest))
    assert row is not None
    with ThreadPoolExecutor(1) as pool:
        with folder.evictor.lock(), lock_if_unread(folder.blobs.folder / row.name) as unread:
            assert unread  # as an eviction does that has come to this blob
            asking = pool.submit(other.evictor.make_room, MIB)
            while not asking.done() and not is_waiting(disk / "cache" / "evicting"):
                time.sleep(0.001)
            assert not asking.done()
        assert [each.digest for each in asking.result()] == [digest]
        pool.submit(other.close).result()
    folder.close()


def is_waiting(path: Path) -> bool:
    """Return whether a lock on the file is waited for."""
    inode = f":{path.stat().st_ino} "
    return any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


def full_of_old_blobs(tmp_path: Path, count: int = 100) -> tuple[CacheDirectory, list[Digest]]:
    """A cache at its quota whose blobs of 10 bytes no client has used for a day, the first one longest."""
    folder = folder_with(tmp_path, max_size=10 * count)
    digests = [put(folder, tmp_path, b"%10d" % number)[0] for number in range(count)]
    day_ago = time.time() - 24 * 3600
    folder.blobs.table.touch({digest: day_ago + number for number, digest in enumerate(digests)})
    return folder, digests


def test_eviction_keeps_headroom_of_unused_blobs(tmp_path: Path) -> None:
    """Least recently used first, and no more than the share."""
    folder, digests = full_of_old_blobs(tmp_path)
    assert [each.digest for each in folder.evictor.evict()] == digests[: 100 // SHARE]
    assert folder.evictor.evict() == []
    folder.close()


def test_eviction_makes_no_headroom_of_blobs_used_lately(tmp_path: Path) -> None:
    """A blob that is read stays too: a prefetch is worth less than any of them."""
    folder, digests = full_of_old_blobs(tmp_path)
    folder.blobs.table.touch(dict.fromkeys(digests[1:], time.time() - UNUSED_SECONDS / 2))
    reader = folder.blobs.open(digests[0])
    assert reader is not None
    with reader.file:
        assert folder.evictor.evict() == []
    assert [each.digest for each in folder.evictor.evict()] == digests[:1]
    folder.close()


def test_eviction_makes_headroom_as_clients_ask(tmp_path: Path) -> None:
    """A headroom that prefetches have used up is made again for what clients ask for, and else slowly."""
    folder, digests = full_of_old_blobs(tmp_path)
    folder.evictor.evict()
    ahead = [put(folder, tmp_path, b"%9d!" % number)[0] for number in range(4)]
    for digest in ahead:
        folder.evictor.allowance.note_stored(digest, 10, asked_for=False)
    assert folder.evictor.evict() == []
    folder.evictor.allowance.note_request(ahead[0])
    assert folder.evictor.allowance.earned
    assert [each.digest for each in folder.evictor.evict()] == digests[4:5]
    folder.close()
