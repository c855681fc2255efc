"""The cache folder as a whole, and what its quota costs."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.reference import Repository
from mirror.store.blobs.blobs import EvictedBlob, EvictionReason
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.quota import IN_USE
from mirror.store.cache_dir import SMALL_BYTES, CacheDirectory
from mirror.store.errors import PinTooLarge
from mirror.store.partial.partial import Partial
from tests.fakes.cached import age, open_folder, put_image

X = Repository("docker.io", "library/x")
LONG_AGO = time.time() - 2 * IN_USE


def folder_with(tmp_path: Path, **settings: object) -> CacheDirectory:
    given = {"min_free": Amount(), **settings}
    return CacheDirectory(tmp_path / "cache", CacheSettings.model_validate({"dir": tmp_path, **given}))


def put(folder: CacheDirectory, tmp_path: Path, data: bytes) -> tuple[Digest, int]:
    digest = Digest.of(data)
    path = tmp_path / digest.encoded
    path.write_bytes(data)
    return digest, folder.adopt(VerifiedFile(digest, path, len(data)))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[CacheDirectory]:
    """Room for a thousand bytes."""
    folder = folder_with(tmp_path, max_size=1000)
    yield folder
    folder.close()


def test_what_is_too_much_goes(small: CacheDirectory, tmp_path: Path) -> None:
    """Least recently used first, until it fits; what came last is told what it is too much by."""
    digests = [put(small, tmp_path, bytes([number]) * 300)[0] for number in range(3)]
    small.blobs.touch({digest: LONG_AGO + number for number, digest in enumerate(digests)})
    last, excess = put(small, tmp_path, bytes(400))
    assert excess == 300
    assert [each.digest for each in small.evict()] == digests[:1]
    assert (small.excess(), small.evict()) == (0, [])
    assert small.blobs.has(last)


def test_only_what_is_not_proven_at_each_read_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is to have a blob before its name is known is asked for that; what is small need not be."""
    folder, synced = folder_with(tmp_path), list[int]()
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    put(folder, tmp_path, bytes(SMALL_BYTES))
    assert synced == []
    put(folder, tmp_path, bytes(SMALL_BYTES + 1))
    assert synced == [SMALL_BYTES + 1]
    folder.close()


def test_what_was_used_a_moment_ago_goes_last(tmp_path: Path) -> None:
    """But it goes, so that no burst fills the disk; not what somebody reads, and never what has just come."""
    folder = folder_with(tmp_path, max_size=2 * SMALL_BYTES)
    data = [bytes([number]) * (SMALL_BYTES + 1) for number in range(4)]
    old, read, idle, last = (put(folder, tmp_path, each)[0] for each in data)
    folder.blobs.touch({old: LONG_AGO})
    reader = folder.blobs.open(read)
    assert reader is not None
    with reader.file:
        assert [each.digest for each in folder.evict([last])] == [old, idle]
        assert folder.excess() == 2
    assert [each.digest for each in folder.evict([last])] == [read]
    folder.close()


def test_what_is_small_and_was_used_goes_last_of_all(tmp_path: Path) -> None:
    """Manifests and configs of what is being pulled; but even they do not fill the disk."""
    folder = folder_with(tmp_path, max_size=SMALL_BYTES)
    small = [put(folder, tmp_path, bytes([number]) * 100_000)[0] for number in range(3)]
    large, excess = put(folder, tmp_path, bytes(SMALL_BYTES + 1))
    assert excess > SMALL_BYTES
    assert [each.digest for each in folder.evict()] == [large, small[0]]
    assert folder.excess() == 0
    folder.close()


def test_what_a_growing_file_has_had_is_read_to_its_end(tmp_path: Path) -> None:
    """Whoever reads what was being downloaded, here or in another process, reads a blob when that is over."""
    folder, other = (folder_with(tmp_path, max_size=SMALL_BYTES) for _ in range(2))
    data = bytes(SMALL_BYTES + 1)
    digest = Digest.of(data)
    partial, _ = folder.lock_partial(X, digest)
    assert partial is not None
    folder.allocate(partial, len(data), SMALL_BYTES)
    followed = other.open_remote_partial(digest)
    assert followed is not None
    readers = [partial.open_reader(), followed.open_reader()]
    followed.close()
    partial.write(0, [data], None)
    folder.adopt(partial.verified_file())
    partial.discard()
    partial.release()
    for each in readers:
        with each:
            assert (folder.excess(), folder.evict(), other.evict()) == (1, [], [])
    assert [each.digest for each in folder.evict()] == [digest]
    folder.close()
    other.close()


def interrupted(folder: CacheDirectory, number: int) -> Partial:
    """A fill of 100 kB that has had a byte, long ago; its lock is held."""
    partial, _ = folder.lock_partial(X, Digest.of(bytes([number])))
    assert partial is not None
    folder.allocate(partial, 100_000, 65536).record(0, 1)
    os.utime(partial.data_path, (LONG_AGO, LONG_AGO))
    return partial


def test_what_was_interrupted_goes_before_what_was_just_used(tmp_path: Path) -> None:
    """As much as has to; not what is being filled, or was a moment ago and may be gone on with."""
    folder = folder_with(tmp_path, max_size=420_000)
    running, young, *old = (interrupted(folder, number) for number in range(4))
    os.utime(young.data_path)
    for each in (young, *old):
        each.release()
    first, _ = put(folder, tmp_path, b"1" * 100_000)
    assert folder.evict() == []
    assert sum(each.data_path.exists() for each in old) == 1
    for data in (b"2" * 100_000, b"3" * 100_000):
        put(folder, tmp_path, data)
    assert [each.digest for each in folder.evict()] == [first]
    assert [each.data_path.exists() for each in (running, young, *old)] == [True, True, False, False]
    running.release()
    folder.close()


def test_what_is_used_is_not_too_old(tmp_path: Path) -> None:
    """Age takes nothing that was used a moment ago, however short a time it allows."""
    folder = folder_with(tmp_path, max_age=1)
    digest, _ = put(folder, tmp_path, b"data")
    folder.blobs.touch({digest: time.time() - IN_USE / 2})
    assert folder.evict() == []
    folder.close()


def test_a_fill_counts_with_all_that_is_to_come(small: CacheDirectory, tmp_path: Path) -> None:
    """So that there is room for it when it comes."""
    put(small, tmp_path, b"1" * 500)
    partial, _ = small.lock_partial(X, Digest.of(b"other"))
    assert partial is not None
    small.allocate(partial, 700, 65536)
    assert small.excess() >= 200
    partial.release()


def test_what_nobody_uses_goes_by_age(tmp_path: Path) -> None:
    """Though there is room."""
    folder = folder_with(tmp_path, max_age=3600)
    old, young = (put(folder, tmp_path, data)[0] for data in (b"old", b"young"))
    folder.blobs.touch({old: time.time() - 3700, young: time.time() - 3500})
    assert folder.evict() == [EvictedBlob(old, 3, EvictionReason.AGE)]
    folder.close()


def test_room_is_left_free(tmp_path: Path) -> None:
    """On a file system that others fill too."""
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    folder = folder_with(tmp_path, min_free=2 * free)
    digest, excess = put(folder, tmp_path, b"data")
    assert excess > 0
    assert [each.digest for each in folder.evict()] == [digest]
    folder.close()


def test_what_is_pinned_stays(tmp_path: Path) -> None:
    """Neither quota nor age touches it; what only its neighbours need goes instead."""
    folder = open_folder(tmp_path / "cache", max_size=5000, max_age=40)
    first, second = (put_image(folder, X, str(number), [bytes([number]) * 3000]) for number in (1, 2))
    folder.pin(Pin.parse("x:1"))
    age(folder, *first, *second)
    gone = {each.digest for each in folder.evict()}
    assert gone == set(second) - set(first)
    assert all(folder.blobs.has(each) for each in first)
    folder.close()


def test_what_is_unpinned_can_go(tmp_path: Path) -> None:
    """Though it was passed by a moment ago."""
    folder = open_folder(tmp_path / "cache", max_size=1)
    image = put_image(folder, X, "1", [b"a"])
    age(folder, *image)
    folder.pins.add(Pin.parse("x:1"))
    assert folder.evict() == folder.evict() == []
    folder.unpin(ImagePattern.parse("x:1"))
    assert [each.digest for each in folder.evict()] == image[:2]
    folder.close()


def test_a_pattern_that_comes_to_match_too_much(tmp_path: Path) -> None:
    """Is kept all the same, and the log says so, once."""
    folder = open_folder(tmp_path / "cache", max_size=5000)
    folder.pin(Pin.parse("x:*"))
    for number in range(3):
        age(folder, *put_image(folder, X, str(number), [bytes([number]) * 3000]))
    with structlog.testing.capture_logs() as logs:
        assert folder.evict() == folder.evict() == []
    assert [each["event"] for each in logs] == ["pins take more than there is room for"]
    folder.close()


def test_pins_of_the_configuration_that_are_too_much(tmp_path: Path) -> None:
    """Are kept, and told with the numbers when house is kept; one by command is refused on top of them."""
    folder = open_folder(tmp_path / "cache", max_size=5000)
    images = [put_image(folder, X, str(number), [bytes([number]) * 3000]) for number in range(2)]
    age(folder, *images[0], *images[1])
    folder.configure_pins([Pin.parse("x:*")])
    with structlog.testing.capture_logs() as logs:
        assert folder.evict() == []
    assert [(each["pinned"] > 6000, each["allowed"]) for each in logs] == [(True, 5000)]
    with pytest.raises(PinTooLarge):
        folder.pin(Pin.parse("x:1"))
    folder.close()


def test_a_pin_added_by_another_process_counts_at_once(tmp_path: Path) -> None:
    """Eviction is not fooled by what it knew a moment ago."""
    folder, other = (open_folder(tmp_path / "cache", max_size=1) for _ in range(2))
    image = put_image(folder, X, "1", [b"a"])
    age(folder, *image)
    assert folder.pins.pinned_sizes() == {}
    other.pins.add(Pin.parse("x:1"))
    assert folder.evict() == []
    folder.close()
    other.close()


def test_more_than_there_is_room_for_cannot_be_pinned(tmp_path: Path) -> None:
    """Refused, with the numbers, before anything is changed; what is pinned already counts once."""
    folder = open_folder(tmp_path / "cache", max_size=10_000)
    shared = bytes(4000)
    put_image(folder, X, "1", [shared])
    put_image(folder, X, "2", [shared, b"2" * 3000])
    put_image(folder, X, "3", [b"3" * 4000])
    folder.pin(Pin.parse("x:1"))
    folder.pin(Pin.parse("x:2"))
    with pytest.raises(PinTooLarge) as refused:
        folder.pin(Pin.parse("x:3"))
    assert refused.value.allowed == 10_000
    assert refused.value.used + refused.value.asked > 10_000
    assert 7000 < refused.value.used < 10_000
    assert [str(each.pin.images.tag) for each in folder.pins.all()] == ["1", "2"]
    folder.close()
