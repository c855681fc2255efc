"""Agreement of classes and links."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.agreement import Agreement
from mirror.store.hosted.hosted_index import HostedIndex
from tests.hosting import APP
from tests.unit.store.hosted.test_hosted_index import add


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    folder = CacheDirectory(tmp_path)
    HostedIndex(folder).names.register(["office"], [])
    yield folder
    folder.close()


def test_linked_blob_that_is_evictable_is_found_and_retained(folder: CacheDirectory) -> None:
    """After a database was put back from a copy, for instance."""
    digest = add(folder, b"data")
    HostedIndex(folder).link_blob(APP, digest, 4)
    agreement = Agreement(folder)
    assert list(agreement.evictable(repair=False)) == []
    folder.blobs.retention.release([str(digest)])
    assert list(agreement.evictable(repair=False)) == [str(digest)]
    assert list(agreement.evictable(repair=True)) == [str(digest)]
    assert folder.blobs.retention.retained_among([str(digest)])


def test_retained_blob_without_a_link_is_found_and_released(folder: CacheDirectory) -> None:
    """A crash between the adoption of a blob and its link leaves one; a young one belongs to a push."""
    digest, other = add(folder, b"left"), add(folder, b"linked")
    agreement, later = Agreement(folder), time.time() + 7200
    assert list(agreement.unlinked(repair=True, now=later)) == []  # the index may be lost
    HostedIndex(folder).link_blob(APP, other, 6)
    assert list(agreement.unlinked(repair=True)) == []
    assert list(agreement.unlinked(repair=False, now=later)) == [digest]
    assert list(agreement.unlinked(repair=True, now=later)) == [digest]
    assert folder.blobs.retention.retained_among([str(digest), str(other)]) == {str(other)}
