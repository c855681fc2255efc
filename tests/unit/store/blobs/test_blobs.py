"""The blob store: files by digest, misses for damaged files, and evictions."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import BlobStore
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


def test_blob_is_opened_with_its_size(blobs: BlobStore, tmp_path: Path) -> None:
    """The blob is open for reading, and its file is read-only on the disk."""
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


def test_blob_that_is_missing_is_none(blobs: BlobStore) -> None:
    """No entry, no file, no error."""
    digest = Digest.of(b"nothing")
    assert (blobs.has(digest), blobs.open(digest), blobs.read(digest, 10)) == (False, None, None)


def test_blob_without_its_file_is_a_miss(blobs: BlobStore, tmp_path: Path) -> None:
    """The entry goes too, so that a new file can come (invariant 8)."""
    digest = put(blobs, tmp_path, b"data")
    file_of(tmp_path, digest).unlink()
    assert blobs.open(digest) is None
    assert not blobs.has(digest)
    put(blobs, tmp_path, b"data")
    assert blobs.read(digest, 4) == b"data"


def test_blob_of_the_wrong_size_is_quarantined(blobs: BlobStore, tmp_path: Path) -> None:
    """The file is kept for the operator, and not deleted."""
    digest = put(blobs, tmp_path, b"data")
    path = file_of(tmp_path, digest)
    path.chmod(0o600)
    path.write_bytes(b"longer than it was")
    assert blobs.open(digest) is None
    assert not blobs.has(digest)
    assert [each.read_bytes() for each in (tmp_path / "quarantine").iterdir()] == [b"longer than it was"]


def test_quarantine_of_a_missing_blob_is_no_error(blobs: BlobStore) -> None:
    """Two readers may find the same damage."""
    blobs.quarantine(Digest.of(b"gone"))


def test_add_of_one_blob_from_many_threads(blobs: BlobStore, tmp_path: Path) -> None:
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
