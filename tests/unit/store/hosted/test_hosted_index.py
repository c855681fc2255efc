"""Transactions of the index of hosted repositories."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.errors import BlobLost, ContentMissing, QuotaExceeded
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


def test_blob_is_retained_until_its_last_hosted_link_goes(folder: CacheDirectory, index: HostedIndex) -> None:
    """The mirror may still use the blob afterwards, and evict it."""
    digest = add(folder, b"shared", retained=False)
    index.link_blob(APP, digest, 6)
    index.link_blob(LAB, digest, 6)
    retained = folder.blobs.retention.retained_among
    index.delete_blob(APP, digest)
    assert retained([str(digest)])
    index.delete_blob(LAB, digest)
    assert not retained([str(digest)])
    assert folder.blobs.has(digest)


def test_link_to_an_evicted_blob_is_refused(index: HostedIndex) -> None:
    """The blob may have gone between the moment it was looked for and this one."""
    with pytest.raises(BlobLost):
        index.link_blob(APP, Digest.of(b"gone"), 4)
    assert not index.queries.exists(APP)


def test_refused_manifest_of_a_batch_changes_nothing(folder: CacheDirectory, index: HostedIndex) -> None:
    """The others of its transaction are kept."""
    good, bad = add(folder, b"good"), add(folder, b"bad")
    push = PushedManifest(APP, good, b"good", OCI_MANIFEST, (Tag("good"),))
    lacking = PushedManifest(APP, bad, b"bad", OCI_MANIFEST, (Tag("bad"),), blobs=(Digest.of(b"none"),))
    results = index.put_manifests([lacking, push])
    assert isinstance(results[0], ContentMissing)
    assert results[1] == [(Tag("good"), None)]
    assert folder.index.tags(APP, "", 10) == ["good"]
    assert folder.index.link(APP, bad) is None


def test_quota_is_checked_in_the_transaction(folder: CacheDirectory, index: HostedIndex) -> None:
    """Content that the repository has already needs no room."""
    digest, other = add(folder, b"12345"), add(folder, b"abc")
    index.link_blob(APP, digest, 5, Quotas(7, 0))
    index.link_blob(APP, digest, 5, Quotas(7, 0))
    with pytest.raises(QuotaExceeded) as refused:
        index.link_blob(APP, other, 3, Quotas(7, 0))
    assert (refused.value.scope, refused.value.used, refused.value.asked) == ("office", 5, 3)
    assert folder.index.link(APP, other) is None


def test_unnamed_blobs_go_unless_a_push_names_them_meanwhile(
    folder: CacheDirectory, index: HostedIndex
) -> None:
    named, unnamed = add(folder, b"named"), add(folder, b"unnamed")
    for digest in (named, unnamed):
        index.link_blob(APP, digest, 7)
    before = index._clock()
    manifest = add(folder, b"manifest")
    index.put_manifest(PushedManifest(APP, manifest, b"manifest", OCI_MANIFEST, blobs=(named,)))
    assert index.drop_unnamed(APP, [named, unnamed], before) == [unnamed]
    assert folder.index.link(APP, named) is not None
    assert not folder.blobs.retention.retained_among([str(unnamed)])


def test_repository_ends_with_its_last_content(folder: CacheDirectory, index: HostedIndex) -> None:
    digest = add(folder, b"data")
    index.link_blob(APP, digest, 4)
    assert index.queries.exists(APP)
    index.remove(APP, (), [digest])
    assert not index.queries.exists(APP)
    assert index.queries.held("office/app") == 0


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


def test_lost_manifest_is_refused_and_not_linked(folder: CacheDirectory, index: HostedIndex) -> None:
    """A blob whose link cannot be read counts as missing."""
    blob, lost = add(folder, b"blob"), Digest.of(b"lost")
    index.link_blob(APP, blob, 4)
    push = PushedManifest(APP, lost, b"lost", OCI_MANIFEST, blobs=(blob,))
    assert isinstance(index.put_manifests([push])[0], BlobLost)
    assert folder.index.link(APP, lost) is None
    folder.index.database.put_text(f"link:{APP}@{blob}", "no link")
    assert isinstance(index.put_manifests([push])[0], ContentMissing)


def test_index_is_pushed_together_with_its_manifest(folder: CacheDirectory, index: HostedIndex) -> None:
    """The order of the pushes of one transaction decides; a manifest that is pushed twice is counted once."""
    child, parent = add(folder, b"child"), add(folder, b"parent")
    pushed = PushedManifest(APP, child, b"child", OCI_MANIFEST)
    naming = PushedManifest(APP, parent, b"parent", OCI_INDEX, manifests=(child,))
    elsewhere = PushedManifest(LAB, parent, b"parent", OCI_INDEX, manifests=(child,))
    results = index.put_manifests([naming, pushed, elsewhere, naming, pushed])
    assert [isinstance(each, ContentMissing) for each in results] == [True, False, True, False, False]
    assert [index.queries.held(name) for name in ("office", "office/app", "lab")] == [11, 11, 0]
