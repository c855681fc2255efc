"""The blob store: files by digest, misses for what is wrong, and a quota."""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import BlobStore, EvictedBlob, EvictionReason
from mirror.store.blobs.diskcache_disk import VerifiedFile


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[BlobStore]:
    opened = BlobStore(tmp_path / "blobs", tmp_path / "quarantine")
    yield opened
    opened.close()


def put(blobs: BlobStore, folder: Path, data: bytes) -> Digest:
    digest = Digest.of(data)
    path = folder / f"incoming-{threading.get_ident()}-{digest.encoded}"
    path.write_bytes(data)
    blobs.add(VerifiedFile(digest, path, len(data)))
    return digest


def file_of(folder: Path, digest: Digest) -> Path:
    (path,) = (folder / "blobs" / "sha256" / digest.encoded[:2]).glob(f"{digest.encoded[2:]}.*")
    return path


def test_what_went_in_comes_out(blobs: BlobStore, tmp_path: Path) -> None:
    """Open for reading, with its size; and read-only on the disk."""
    digest = put(blobs, tmp_path, b"data")
    found = blobs.open(digest)
    assert found is not None
    with found.file:
        assert (found.size, found.file.read()) == (4, b"data")
    assert blobs.has(digest)
    assert blobs.read(digest, 4) == b"data"
    assert blobs.read(digest, 3) is None
    assert blobs.stats() == (4, 1)
    assert file_of(tmp_path, digest).stat().st_mode & 0o777 == 0o400
    assert blobs.check() == []


def test_what_is_not_there_is_none(blobs: BlobStore) -> None:
    """No entry, no file, no error."""
    digest = Digest.of(b"nothing")
    assert (blobs.has(digest), blobs.open(digest), blobs.read(digest, 10)) == (False, None, None)


def test_a_file_that_vanished_is_a_miss(blobs: BlobStore, tmp_path: Path) -> None:
    """The entry goes too, so that a new file can come (invariant 8)."""
    digest = put(blobs, tmp_path, b"data")
    file_of(tmp_path, digest).unlink()
    assert blobs.open(digest) is None
    assert not blobs.has(digest)
    put(blobs, tmp_path, b"data")
    assert blobs.read(digest, 4) == b"data"


def test_a_file_of_the_wrong_size_is_set_aside(blobs: BlobStore, tmp_path: Path) -> None:
    """Quarantined, not deleted: somebody may want to see it."""
    digest = put(blobs, tmp_path, b"data")
    path = file_of(tmp_path, digest)
    path.chmod(0o600)
    path.write_bytes(b"longer than it was")
    assert blobs.open(digest) is None
    assert not blobs.has(digest)
    assert [each.read_bytes() for each in (tmp_path / "quarantine").iterdir()] == [b"longer than it was"]


def test_setting_aside_what_is_gone_is_no_error(blobs: BlobStore) -> None:
    """Two readers may find the same thing wrong."""
    blobs.quarantine(Digest.of(b"gone"))


def test_last_uses_are_noted_a_few_at_a_time(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other writers get their turn in between, however many there are."""
    monkeypatch.setattr("mirror.store.blobs.blobs.ROWS", 2)
    digests = [put(blobs, tmp_path, bytes([number])) for number in range(3)]
    said: list[str] = []
    blobs.database.cache._con.set_trace_callback(said.append)
    blobs.touch(dict.fromkeys(digests, 7.0))
    assert said.count("COMMIT") == 2
    assert {used for _, used in blobs.sizes_and_last_use(map(str, digests)).values()} == {7.0}


def test_the_least_recently_used_goes_first(blobs: BlobStore, tmp_path: Path) -> None:
    """As much as has to, oldest first; what is kept, or was used since, stays."""
    digests = [put(blobs, tmp_path, bytes([number]) * 100) for number in range(6)]
    blobs.touch({digest: 1000.0 + number for number, digest in enumerate(reversed(digests))})
    gone = blobs.evict(1004.5, 150, keep=[str(digests[4])]).evicted
    assert gone == [EvictedBlob(digests[5], 100), EvictedBlob(digests[3], 100)]
    assert [blobs.has(digest) for digest in digests] == [True, True, True, False, True, False]
    assert blobs.evict(1004.5, None, keep=[]).evicted == [
        EvictedBlob(digests[4], 100),
        EvictedBlob(digests[2], 100),
        EvictedBlob(digests[1], 100),
    ]
    assert blobs.stats() == (100, 1)
    assert blobs.check() == []


def test_what_is_being_read_stays(blobs: BlobStore, tmp_path: Path) -> None:
    """However long ago that began. It is looked at again next time: it is not passed by for good."""
    digests = [put(blobs, tmp_path, bytes([number]) * 100) for number in range(3)]
    blobs.touch({digest: 1000.0 + number for number, digest in enumerate(digests)})
    held = blobs.open(digests[1])
    assert held is not None
    with held.file:
        first = blobs.evict(2000.0, None, keep=[str(digests[0])])
        assert [each.digest for each in first.evicted] == digests[2:]
    assert first.resume_after[0] == 1000.0
    assert [each.digest for each in blobs.evict(2000.0, None, [], first.resume_after).evicted] == [digests[1]]


def test_what_was_used_goes_by_size_and_then_by_age(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small things last, of as many as are looked at together: what that costs does not grow with them."""
    monkeypatch.setattr("mirror.store.blobs.blobs.ROWS", 4)
    sizes = [1, 300, 2, 200, 3, 100, 4]
    digests = [put(blobs, tmp_path, bytes([number]) * size) for number, size in enumerate(sizes)]
    blobs.touch({digest: 1000.0 + number for number, digest in enumerate(digests)})
    assert blobs.evict_in_use(1000.5, 1, [], 50) == [EvictedBlob(digests[1], 300, EvictionReason.USED)]
    held = blobs.open(digests[3])
    assert held is not None
    with held.file:
        gone = blobs.evict_in_use(1000.5, 1000, [str(digests[6])], 50)
    assert [each.size for each in gone] == [100, 2, 3]
    assert [each.size for each in blobs.evict_in_use(0.0, 1000, [], 50)] == [200, 1, 4]
    assert blobs.check() == []


def test_where_readers_cannot_be_seen_only_what_nobody_used_goes(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network file systems."""
    digest = put(blobs, tmp_path, b"data")

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", flock)
    blobs.touch({digest: 1000.0})
    assert blobs.evict_in_use(999.0, 4, [], 0) == []
    assert blobs.evict(1001.0, 4, []).evicted == [EvictedBlob(digest, 4)]


def test_what_has_come_anew_is_another_blob(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has looked it up, and then finds no file, does not take away the one that came since."""
    digest = put(blobs, tmp_path, b"data")
    replacing, real = iter([digest]), open

    def opened(*arguments: Any, **options: Any) -> Any:
        for each in replacing:
            blobs.remove(each)
            put(blobs, tmp_path, b"data")
        return real(*arguments, **options)

    monkeypatch.setattr("builtins.open", opened)
    assert blobs.open(digest) is None
    assert blobs.read(digest, 4) == b"data"


def test_an_eviction_beside_others_takes_only_what_it_has_seen(blobs: BlobStore, tmp_path: Path) -> None:
    """What was removed and fetched anew since it was listed stays."""
    digest = put(blobs, tmp_path, b"data")
    blobs.touch({digest: 1000.0})

    class Replacing(list[str]):
        def __contains__(self, key: object) -> bool:
            blobs.remove(digest)
            put(blobs, tmp_path, b"data")
            return False

    assert blobs.evict(2000.0, None, Replacing()).evicted == []
    assert blobs.read(digest, 4) == b"data"


def test_adopting_the_same_blob_from_many_threads(blobs: BlobStore, tmp_path: Path) -> None:
    """One entry, one file, and nothing inconsistent."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            for number in range(20):
                put(blobs, tmp_path, bytes([number]) * 100)
        except Exception as error:
            failures.append(error)
        finally:
            blobs.close()

    executor = [threading.Thread(target=work) for _ in range(4)]
    for each in executor:
        each.start()
    for each in executor:
        each.join()
    assert failures == []
    assert blobs.stats() == (2000, 20)
    assert blobs.check() == []


def test_what_is_known_of_blobs(blobs: BlobStore, tmp_path: Path) -> None:
    """Size and last use of those that are here; removed, entry and file are gone."""
    digest = put(blobs, tmp_path, b"data")
    blobs.touch({digest: 1000.0})
    assert blobs.sizes_and_last_use([str(digest), str(Digest.of(b"other"))]) == {str(digest): (4, 1000.0)}
    assert (blobs.remove(digest), blobs.remove(digest)) == (True, False)
    assert blobs.check() == []


def test_eviction_reads_a_few_rows_at_a_time(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And misses none, though they were used at the same moment."""
    monkeypatch.setattr("mirror.store.blobs.blobs.ROWS", 2)
    digests = [put(blobs, tmp_path, bytes([number])) for number in range(7)]
    blobs.touch(dict.fromkeys(digests, 1000.0))
    gone = blobs.evict(1001.0, None, keep=[str(digests[3])]).evicted
    assert {each.digest for each in gone} == {*digests} - {digests[3]}


def test_eviction_says_how_far_there_is_nothing_to_evict(blobs: BlobStore, tmp_path: Path) -> None:
    """So that the next one can begin there; not beyond the first that went."""
    digests = [put(blobs, tmp_path, bytes([number])) for number in range(4)]
    blobs.touch({digest: 1000.0 + number for number, digest in enumerate(digests)})
    kept = [str(digests[0]), str(digests[1]), str(digests[3])]
    first = blobs.evict(2000.0, None, kept)
    assert [each.digest for each in first.evicted] == digests[2:3]
    assert first.resume_after[0] == 1001.0
    second = blobs.evict(2000.0, None, [], first.resume_after)
    assert [each.digest for each in second.evicted] == digests[3:]
