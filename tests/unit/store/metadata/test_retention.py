"""The retention class of blobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import BlobStore
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.metadata.blob_table import BlobRow


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[BlobStore]:
    store = BlobStore(tmp_path / "blobs", tmp_path / "quarantine")
    yield store
    store.close()


def add(blobs: BlobStore, data: bytes, *, retained: bool = False) -> str:
    path = blobs.folder.parent / "incoming"
    path.write_bytes(data)
    digest = Digest.of(data)
    blobs.add(VerifiedFile(digest, path, len(data), retained=retained))
    return str(digest)


def test_retained_blobs_are_never_evicted(blobs: BlobStore) -> None:
    """Neither order of use, nor excess, nor a share makes a retained blob go."""
    kept, gone = add(blobs, b"kept", retained=True), add(blobs, b"gone")
    blobs.table.touch({Digest.parse(kept): 1.0, Digest.parse(gone): 2.0})
    assert [str(each.digest) for each in blobs.evictions.evict(3.0, None, (), remove=False).evicted] == [gone]
    assert [str(each.digest) for each in blobs.evictions.evict(3.0, None, ()).evicted] == [gone]
    assert not blobs.evictions.evict_in_use(0.0, 100, (), 0)
    assert not blobs.evictions.evict_one(kept)
    assert blobs.has(Digest.parse(kept))


def test_evictions_do_not_read_what_is_retained(blobs: BlobStore) -> None:
    """A registry of a million blobs beside a full cache must not cost a look at each."""
    blobs.retention.prepare()
    statement = (
        "EXPLAIN QUERY PLAN SELECT access_time, rowid, key FROM Cache WHERE access_count = 0"
        " AND (access_time, rowid) > (?, ?) AND access_time < ? ORDER BY access_time, rowid LIMIT ?"
    )
    plan = blobs.database.cache._sql(statement, (0.0, 0, 9.0, 5)).fetchall()
    assert any("Cache_evictable" in str(row) for row in plan)


def test_retention_begins_and_ends(blobs: BlobStore) -> None:
    digest = add(blobs, b"data")
    assert blobs.retention.retain([digest, "sha256:none"]) == {"sha256:none"}
    assert blobs.retention.retained_among([digest, "sha256:none"]) == {digest}
    assert blobs.retention.retained_after("", 10) == [digest]
    blobs.retention.release([digest])
    assert not blobs.retention.retained_among([digest])
    assert blobs.evictions.evict_one(digest)


def test_retained_bytes_are_counted(blobs: BlobStore) -> None:
    """The sum follows additions, changes of class and removals, however a blob goes."""
    first, second = add(blobs, b"abc", retained=True), add(blobs, b"defgh")
    assert blobs.retention.totals() == (3, 1)
    blobs.retention.retain([first, second])
    assert blobs.retention.totals() == (8, 2)
    blobs.retention.release([first])
    assert blobs.retention.totals() == (5, 1)
    assert not blobs.remove(Digest.parse(second))
    row = blobs.table.row(second)
    assert row is not None
    blobs.drop_entry(row)
    assert blobs.retention.totals() == (0, 0)


def test_new_entries_are_retained_if_hosted_repositories_link_them(blobs: BlobStore) -> None:
    """A blob that was lost, and comes again by a fill or a repair, has its class from the first moment."""
    linked = {str(Digest.of(b"linked"))}
    blobs.retention.hosted_among = linked.intersection
    assert blobs.retention.retained_among([add(blobs, b"linked"), add(blobs, b"other")]) == linked
    row = blobs.table.row(next(iter(linked)))
    assert row is not None
    blobs.drop_entry(row)
    blobs.add_entry(BlobRow(row.digest, row.name, row.size))
    assert blobs.retention.retained_among(linked) == linked
