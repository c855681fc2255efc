"""Evictions from the blob store."""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import BlobStore
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import EvictedBlob, EvictionReason


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


def test_evict_removes_least_recently_used_first(blobs: BlobStore, tmp_path: Path) -> None:
    """Blobs go until enough bytes are gone; kept ones, and those used since, stay."""
    digests = [put(blobs, tmp_path, bytes([number]) * 100) for number in range(6)]
    blobs.table.touch({digest: 1000.0 + number for number, digest in enumerate(reversed(digests))})
    evicted = blobs.evictions.evict(1004.5, 150, keep=[str(digests[4])]).evicted
    assert evicted == [EvictedBlob(digests[5], 100), EvictedBlob(digests[3], 100)]
    assert [blobs.has(digest) for digest in digests] == [True, True, True, False, True, False]
    assert blobs.evictions.evict(1004.5, None, keep=[]).evicted == [
        EvictedBlob(digests[4], 100),
        EvictedBlob(digests[2], 100),
        EvictedBlob(digests[1], 100),
    ]
    assert blobs.stats() == (100, 1)
    assert blobs.check() == []


def test_evict_spares_blobs_being_read(blobs: BlobStore, tmp_path: Path) -> None:
    """A blob stays however long ago its reader began. The next eviction looks at the blob again."""
    digests = [put(blobs, tmp_path, bytes([number]) * 100) for number in range(3)]
    blobs.table.touch({digest: 1000.0 + number for number, digest in enumerate(digests)})
    reader = blobs.open(digests[1])
    assert reader is not None
    with reader.file:
        first = blobs.evictions.evict(2000.0, None, keep=[str(digests[0])])
        assert [each.digest for each in first.evicted] == digests[2:]
    assert first.resume_after[0] == 1000.0
    assert [each.digest for each in blobs.evictions.evict(2000.0, None, [], first.resume_after).evicted] == [
        digests[1]
    ]


def test_evict_in_use_takes_large_blobs_first(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small blobs go last among those of one batch: the cost does not grow with their number."""
    for module in ("blobs.evictions", "metadata.blob_table"):
        monkeypatch.setattr(f"mirror.store.{module}.ROWS", 4)
    sizes = [1, 300, 2, 200, 3, 100, 4]
    digests = [put(blobs, tmp_path, bytes([number]) * size) for number, size in enumerate(sizes)]
    blobs.table.touch({digest: 1000.0 + number for number, digest in enumerate(digests)})
    assert blobs.evictions.evict_in_use(1000.5, 1, [], 50) == [
        EvictedBlob(digests[1], 300, EvictionReason.USED)
    ]
    reader = blobs.open(digests[3])
    assert reader is not None
    with reader.file:
        evicted = blobs.evictions.evict_in_use(1000.5, 1000, [str(digests[6])], 50)
    assert [each.size for each in evicted] == [100, 2, 3]
    assert [each.size for each in blobs.evictions.evict_in_use(0.0, 1000, [], 50)] == [200, 1, 4]
    assert blobs.check() == []


def test_evict_without_locks_spares_blobs_in_use(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems do not tell whether a blob is being read."""
    digest = put(blobs, tmp_path, b"data")

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", flock)
    blobs.table.touch({digest: 1000.0})
    assert blobs.evictions.evict_in_use(999.0, 4, [], 0) == []
    assert blobs.evictions.evict(1001.0, 4, []).evicted == [EvictedBlob(digest, 4)]


def test_blob_that_was_fetched_again_is_kept(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that looked the blob up and then finds no file does not remove the new entry."""
    digest = put(blobs, tmp_path, b"data")
    replacing, real = iter([digest]), os.open

    def opened(*arguments: Any, **options: Any) -> Any:
        for each in replacing:
            blobs.remove(each)
            put(blobs, tmp_path, b"data")
        return real(*arguments, **options)

    monkeypatch.setattr("os.open", opened)
    assert blobs.open(digest) is None
    assert blobs.read(digest, 4) == b"data"


def test_evict_removes_only_entries_it_has_seen(blobs: BlobStore, tmp_path: Path) -> None:
    """A blob that was removed and fetched again since it was listed stays."""
    digest = put(blobs, tmp_path, b"data")
    blobs.table.touch({digest: 1000.0})

    class Replacing(list[str]):
        def __contains__(self, key: object) -> bool:
            blobs.remove(digest)
            put(blobs, tmp_path, b"data")
            return False

    assert blobs.evictions.evict(2000.0, None, Replacing()).evicted == []
    assert blobs.read(digest, 4) == b"data"


def test_evict_reads_rows_in_batches(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row is missed, even if all were used at the same moment."""
    monkeypatch.setattr("mirror.store.metadata.blob_table.ROWS", 2)
    digests = [put(blobs, tmp_path, bytes([number])) for number in range(7)]
    blobs.table.touch(dict.fromkeys(digests, 1000.0))
    evicted = blobs.evictions.evict(1001.0, None, keep=[str(digests[3])]).evicted
    assert {each.digest for each in evicted} == {*digests} - {digests[3]}


def test_evict_returns_where_to_resume(blobs: BlobStore, tmp_path: Path) -> None:
    """The next eviction can begin there; not beyond the first blob that went."""
    digests = [put(blobs, tmp_path, bytes([number])) for number in range(4)]
    blobs.table.touch({digest: 1000.0 + number for number, digest in enumerate(digests)})
    kept = [str(digests[0]), str(digests[1]), str(digests[3])]
    first = blobs.evictions.evict(2000.0, None, kept)
    assert [each.digest for each in first.evicted] == digests[2:3]
    assert first.resume_after[0] == 1001.0
    second = blobs.evictions.evict(2000.0, None, [], first.resume_after)
    assert [each.digest for each in second.evicted] == digests[3:]
