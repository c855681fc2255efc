"""Pushed blobs that no manifest names."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.errors import BlobLost, ContentMissing
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.pushes import PushedManifest
from mirror.store.hosted.unnamed import UNNAMED_SECONDS, UnnamedBlobs
from tests.hosting import APP, CONFIG, manifest_of
from tests.unit.store.hosted.test_hosted_index import add

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    folder = CacheDirectory(tmp_path)
    yield folder
    folder.close()


def unnamed(folder: CacheDirectory, after: float, *, remove: bool = True) -> set[Digest]:
    search = UnnamedBlobs(folder, time.time() + after)
    return {
        blob.digest for repository in search.repositories() for blob in search.of(repository, remove=remove)
    }


def test_unnamed_blob_is_kept_for_an_hour(folder: CacheDirectory) -> None:
    """A push may still be on its way to the manifest; what a manifest names stays for good."""
    index = HostedIndex(folder)
    index.names.register(["office"], [])
    config, layer = add(folder, CONFIG), add(folder, b"layer")
    for digest in (config, layer):
        index.link_blob(APP, digest, 5)
    data = manifest_of()
    manifest = add(folder, data)
    index.put_manifest(PushedManifest(APP, manifest, data, OCI_MANIFEST, blobs=(config,)))
    assert unnamed(folder, UNNAMED_SECONDS - 60) == set()
    assert unnamed(folder, UNNAMED_SECONDS + 60, remove=False) == {layer}
    assert unnamed(folder, UNNAMED_SECONDS + 60) == {layer}
    assert folder.index.link(APP, layer) is None
    assert folder.index.link(APP, config) is not None


def test_unreadable_manifest_keeps_the_blobs_of_its_repository(folder: CacheDirectory) -> None:
    """The named blobs are not known then: the manifest may come back from a backup, or by another push."""
    index = HostedIndex(folder)
    index.names.register(["office"], [])
    layer, manifest = add(folder, b"layer"), add(folder, b"{}")
    index.link_blob(APP, layer, 5)
    index.put_manifest(PushedManifest(APP, manifest, b"{}", OCI_MANIFEST))
    row = folder.blobs.table.row(str(manifest))
    assert row is not None
    folder.blobs.drop_entry(row)
    assert unnamed(folder, 2 * UNNAMED_SECONDS) == set()


def test_collections_beside_pushes_lose_nothing(folder: CacheDirectory) -> None:
    """Uploads of two hours ago are collected while manifests name them: a push is refused, or whole."""
    index = HostedIndex(folder)
    index.names.register(["office"], [])
    ended = threading.Event()

    def collect() -> None:
        while not ended.is_set():
            unnamed(folder, 0)
        folder.recovery.drop_connections()

    collector = threading.Thread(target=collect)
    collector.start()
    refused = 0
    for number in range(20):
        data, digests = manifest_of([b"layer %d" % number]), list[Digest]()
        while len(digests) < 2:
            digests = [link(folder, index, each) for each in (CONFIG, b"layer %d" % number)]
            try:
                manifest = add(folder, data)
                index.put_manifest(PushedManifest(APP, manifest, data, OCI_MANIFEST, blobs=tuple(digests)))
            except (ContentMissing, BlobLost):
                digests, refused = [], refused + 1
    ended.set()
    collector.join()
    for number in range(20):
        digest = Digest.of(b"layer %d" % number)
        assert folder.index.link(APP, digest) is not None
        assert folder.blobs.retention.retained_among([str(digest)])


def link(folder: CacheDirectory, index: HostedIndex, data: bytes) -> Digest:
    """Push a blob, until it is linked, as if that had been two hours ago."""
    while True:
        digest = add(folder, data)
        with suppress(BlobLost):
            index.link_blob(APP, digest, len(data))
            statement = "UPDATE Cache SET store_time = store_time - 7200 WHERE key = ?"
            folder.index.database.query(statement, (f"link:{APP}@{digest}",))
            return digest
