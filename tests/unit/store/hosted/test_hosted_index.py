"""Transactions of the index of hosted repositories."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.errors import BlobLost, ContentMissing
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.pushes import PushedManifest

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
