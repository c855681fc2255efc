"""The entries of blobs."""

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


def test_touch_writes_in_batches(blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other writers get their turn in between, however many blobs there are."""
    monkeypatch.setattr("mirror.store.metadata.blob_table.ROWS", 2)
    digests = [put(blobs, tmp_path, bytes([number])) for number in range(3)]
    said: list[str] = []
    blobs.database.cache._con.set_trace_callback(said.append)
    blobs.table.touch(dict.fromkeys(digests, 7.0))
    assert said.count("COMMIT") == 2
    assert {used for _, used in blobs.table.sizes_and_last_use(map(str, digests)).values()} == {7.0}


def test_sizes_and_last_use_of_blobs(blobs: BlobStore, tmp_path: Path) -> None:
    """Blobs that are here have both; entry and file of a removed one are gone."""
    digest = put(blobs, tmp_path, b"data")
    blobs.table.touch({digest: 1000.0})
    assert blobs.table.sizes_and_last_use([str(digest), str(Digest.of(b"other"))]) == {
        str(digest): (4, 1000.0)
    }
    assert (blobs.remove(digest), blobs.remove(digest)) == (True, False)
    assert blobs.check() == []
