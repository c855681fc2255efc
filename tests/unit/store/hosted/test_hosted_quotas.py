"""Bytes held by hosted registries, and their quotas."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.errors import QuotaExceeded
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.pushes import NO_QUOTAS, PushedManifest, Quotas

APP, OTHER, LAB = Repository("office", "app"), Repository("office", "other"), Repository("lab", "app")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    folder = CacheDirectory(tmp_path)
    yield folder
    folder.close()


@pytest.fixture
def index(folder: CacheDirectory) -> HostedIndex:
    found = HostedIndex(folder)
    found.names.register(["office", "lab"], [])
    return found


def add(folder: CacheDirectory, data: bytes, *, retained: bool = True) -> Digest:
    path = folder.partials / "incoming"
    path.write_bytes(data)
    digest = Digest.of(data)
    folder.blobs.add(VerifiedFile(digest, path, len(data), retained=retained))
    return digest


def test_held_bytes_count_each_blob_once(folder: CacheDirectory, index: HostedIndex) -> None:
    """Each repository and each registry counts for itself."""
    digest = add(folder, b"12345")
    for repository in (APP, APP, OTHER, LAB):
        index.link_blob(repository, digest, 5)
    names = ("office", "office/app", "office/other", "lab")
    assert [index.queries.held(name) for name in names] == [5, 5, 5, 5]
    index.delete_blob(APP, digest)
    assert (index.queries.held("office"), index.queries.held("office/app")) == (5, 0)
    index.delete_blob(OTHER, digest)
    assert (index.queries.held("office"), index.queries.held("lab")) == (0, 5)


def test_quota_is_checked_in_the_transaction(folder: CacheDirectory, index: HostedIndex) -> None:
    """Content that the repository has already needs no room."""
    digest, other = add(folder, b"12345"), add(folder, b"abc")
    index.link_blob(APP, digest, 5, Quotas(7, 0))
    index.link_blob(APP, digest, 5, Quotas(7, 0))
    with pytest.raises(QuotaExceeded) as refused:
        index.link_blob(APP, other, 3, Quotas(7, 0))
    assert (refused.value.scope, refused.value.used, refused.value.asked) == ("office", 5, 3)
    assert folder.index.link(APP, other) is None


def test_quota_counts_what_the_same_transaction_has_linked(
    folder: CacheDirectory, index: HostedIndex
) -> None:
    """Pushes that are written together are refused as if they came one by one, and counted the same."""
    datas = (b"12345", b"67890", b"abc", b"12345")
    pushes = [
        PushedManifest(APP, add(folder, data), data, OCI_MANIFEST, (Tag(f"t{number}"),), quotas=quotas)
        for number, (data, quotas) in enumerate(
            zip(datas, (NO_QUOTAS, Quotas(9, 0), Quotas(0, 8), Quotas(8, 8)), strict=True)
        )
    ]
    results = index.put_manifests(pushes)
    assert [isinstance(each, QuotaExceeded) for each in results] == [False, True, False, False]
    assert [index.queries.held(name) for name in ("office", "office/app")] == [8, 8]
    assert folder.index.tags(APP, "", 10) == ["t0", "t2", "t3"]
