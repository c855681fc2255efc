"""Orphans: files and entries that belong to nothing."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from mirror.store.orphans import entries_without_file, files_without_entry, old_partials
from mirror.store.partial.lease import Lease
from tests.fakes.cached import X, interrupt, open_folder, put_blob

SOON, NEVER = time.time() + 3600, 0.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    yield opened
    opened.close()


def names(folder: CacheDirectory, before: float, *, remove: bool = False) -> list[str]:
    return [each.path.name for each in old_partials(folder.partials, before, remove=remove)]


def test_orphans_are_files_without_entry(folder: CacheDirectory) -> None:
    """A second copy of a blob, and a file that is no blob; once they are old enough."""
    digest = put_blob(folder, b"data")
    (path,) = (
        each
        for each in folder.blobs.folder.rglob("*")
        if each.is_file() and each.suffix not in (".db",) and "cache.db" not in each.name
    )
    copy, other = path.with_suffix(".copy"), path.parent / "other"
    copy.write_bytes(b"data")
    other.write_bytes(b"x")
    assert {each.path for each in files_without_entry(folder.blobs, SOON)} == {copy, other}
    assert list(files_without_entry(folder.blobs, NEVER)) == []
    assert folder.blobs.has(digest)


def test_orphans_are_entries_without_file(folder: CacheDirectory) -> None:
    """Found without opening anything."""
    lost, here = put_blob(folder, b"gone"), put_blob(folder, b"here")
    (path,) = folder.blobs.folder.rglob(f"{lost.encoded[2:]}.*")
    path.unlink()
    assert list(entries_without_file(folder.blobs)) == [lost]
    assert folder.blobs.has(here)


def test_orphans_are_old_partials(folder: CacheDirectory) -> None:
    """Old ones, with map and data; not those that are being filled, nor young ones."""
    old, busy = (Digest.of(each) for each in (b"old", b"busy"))
    for digest in (old, busy):
        partial, _ = folder.fills.lock_partial(X, digest)
        assert partial is not None
        folder.fills.allocate(partial, 1000, 65536)
        if digest == old:
            interrupt(partial)
    (lease,) = folder.fills.acquire_leases([Digest.of(b"small")])
    assert lease is not None
    assert isinstance(lease.lease, Lease)
    os.close(lease.lease.descriptor)
    (folder.partials / "small-x-1-2").write_bytes(b"x")
    expected = [f"sha256-{old.encoded}.data", f"sha256-{lease.digest.encoded}.map", "small-x-1-2"]
    assert sorted(names(folder, SOON)) == sorted(expected)
    assert names(folder, NEVER, remove=True) == []
    assert sorted(names(folder, SOON, remove=True)) == sorted(expected)
    left = {each.name for each in folder.partials.iterdir()}
    assert left == {f"sha256-{busy.encoded}.data", f"sha256-{busy.encoded}.map"}
