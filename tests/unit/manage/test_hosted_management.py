"""Operators' use cases on hosted registries: list, count, collect, verify, remove, export."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.manage.disk_usage import disk_totals
from mirror.manage.garbage_collector import UNLINKED, UNNAMED, GarbageCollector
from mirror.manage.inventory import Inventory
from mirror.manage.removal import ImageRemoval
from mirror.manage.verification import Verification
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.fsck import Damage
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.pushes import PushedManifest
from mirror.store.metadata.index import Link
from mirror.store.partial.upload import UPLOADS, UploadStore
from mirror.util.rate_limiter import RateLimiter
from tests.hosting import APP, CONFIG, manifest_of
from tests.unit.store.hosted.test_hosted_index import add

HUB = Repository("docker.io", "library/x")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    folder = CacheDirectory(tmp_path)
    HostedIndex(folder).names.register(["office"], [])
    yield folder
    folder.close()


def push(folder: CacheDirectory, repository: Repository, layer: bytes) -> Digest:
    """Push an image as the tag `latest`."""
    index, data = HostedIndex(folder), manifest_of([layer])
    for each in (CONFIG, layer):
        index.link_blob(repository, add(folder, each), len(each))
    digest = add(folder, data)
    blobs = (Digest.of(CONFIG), Digest.of(layer))
    index.put_manifest(PushedManifest(repository, digest, data, OCI_MANIFEST, (Tag("latest"),), blobs))
    return digest


def test_pushed_images_are_listed_and_counted(folder: CacheDirectory) -> None:
    digest = push(folder, APP, b"layer")
    (image,) = Inventory(folder).images(ImagePattern("*"))
    assert (image.reference, image.digest, image.complete) == ("office/app:latest", digest, True)
    assert image.platforms == ("linux/amd64",)
    upload = UploadStore(folder.path / UPLOADS).create(APP)
    upload.append([b"123"])
    upload.release()
    total = disk_totals(folder)
    assert (total.uploads, total.upload_bytes) == (1, 3)
    assert total.retained == total.blobs == len(CONFIG) + 5 + len(manifest_of([b"layer"]))
    assert total.downloads == 0


def test_removed_push_leaves_what_the_mirror_has(folder: CacheDirectory) -> None:
    """`rm` frees what only the push needed; a shared layer stays, and can be evicted."""
    push(folder, APP, b"layer")
    layer = Digest.of(b"layer")
    folder.index.add_links(HUB, {layer: Link(None, 5, confirmed=1.0)})
    (step,) = ImageRemoval(folder, ImagePattern("office/app")).carry_out()
    assert (step.hosted, step.images) == (True, ("office/app:latest",))
    assert layer not in step.blobs
    assert not HostedIndex(folder).queries.exists(APP)
    assert [folder.blobs.has(each) for each in (layer, Digest.of(CONFIG))] == [True, False]
    assert folder.blobs.retention.totals() == (0, 0)
    assert HostedIndex(folder).queries.held("office") == 0


def test_removal_from_the_mirror_leaves_what_was_pushed(folder: CacheDirectory) -> None:
    """Even if the push came between the plan of the removal and the removal."""
    layer = add(folder, b"layer", retained=False)
    removed = folder.blobs.remove
    folder.index.add_links(HUB, {layer: Link(None, 5, confirmed=1.0)})
    HostedIndex(folder).link_blob(APP, layer, 5)
    folder.writer.remove_images(HUB, (), [layer], [layer])
    assert not removed(layer)
    assert folder.blobs.has(layer)


@pytest.mark.parametrize("dry_run", [True, False])
def test_garbage_of_pushes_is_collected(folder: CacheDirectory, dry_run: bool) -> None:
    """Blobs without a name, and leftovers of crashes, an hour old; with the bytes that are free then."""
    push(folder, APP, b"layer")
    unnamed, left = add(folder, b"unnamed"), add(folder, b"left by a crash")
    HostedIndex(folder).link_blob(APP, unnamed, 7)
    assert list(GarbageCollector(folder, dry_run=dry_run).items()) == []
    folder.blobs.table.touch({each: time.time() - 7200 for each in (unnamed, left)})
    items = list(GarbageCollector(folder, dry_run=dry_run, now=time.time() + 7200).items())
    assert {(each.kind, each.name, each.size) for each in items} == {
        (UNNAMED, f"office/app@{unnamed}", 7),
        (UNLINKED, str(left), 15),
    }
    assert folder.blobs.has(unnamed) is dry_run
    assert folder.blobs.has(Digest.of(b"layer"))


def test_verify_finds_and_mends_wrong_classes(folder: CacheDirectory) -> None:
    digest = push(folder, APP, b"layer")

    def found(*, repair: bool) -> list[tuple[str, Damage]]:
        run = Verification(folder, RateLimiter(0), quick=False, repair=repair)
        list(run.steps())
        return [(each.subject, each.damage) for each in run.findings]

    assert found(repair=False) == []
    folder.blobs.retention.release([str(digest)])
    assert found(repair=True) == [(str(digest), Damage.EVICTABLE)]
    assert found(repair=False) == []
