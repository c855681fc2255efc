"""Removal of images, without the parts that other images need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.manage.removal import ImageRemoval, RemovalStep
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.reference import Tag
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.cached import X, Y, open_folder, put_image, put_signature


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    yield opened
    assert opened.blobs.check() == []
    opened.close()


def remove(folder: CacheDirectory, pattern: str, *, forced: bool = False) -> list[RemovalStep]:
    """Remove images; the steps must be those that were announced."""
    images = ImagePattern.parse(pattern)
    said, before = list(ImageRemoval(folder, images, forced=forced).steps()), folder.blobs.table.size()
    done = list(ImageRemoval(folder, images, forced=forced).carry_out())
    assert done == said
    assert sum(step.freed for step in done) == before - folder.blobs.table.size()
    return done


def here(folder: CacheDirectory, digests: list[Digest]) -> list[bool]:
    return [folder.blobs.has(each) for each in digests]


def test_removal_of_a_whole_image(folder: CacheDirectory) -> None:
    """Tag, links, blobs and signature go, and the repository with its last image."""
    image = put_image(folder, X, "1", [b"a"])
    signature = put_signature(folder, X, image[0])
    generation = folder.epoch.removals()
    (step,) = remove(folder, "x:1")
    assert step.images == ("docker.io/library/x:1",)
    assert set(step.links) == {*image, *signature}
    assert set(step.manifests) == {image[0], signature[0]}
    assert not any(here(folder, [*image, *signature]))
    assert all(folder.index.link(X, each) is None for each in (*image, *signature))
    assert (folder.index.repositories("", "", 1), folder.index.tags(X, "", 1)) == ([], [])
    assert folder.epoch.removals() != generation


def test_removal_keeps_parts_of_the_same_repository(folder: CacheDirectory) -> None:
    """Blob and link stay for another tag of the repository."""
    first = put_image(folder, X, "1", [b"shared", b"own"])
    second = put_image(folder, X, "2", [b"shared"])
    remove(folder, "x:1")
    assert all(here(folder, second))
    assert here(folder, first) == [False, True, True, False]
    assert folder.index.link(X, Digest.of(b"shared")) is not None
    assert folder.index.link(X, Digest.of(b"own")) is None


def test_removal_keeps_blobs_of_another_repository(folder: CacheDirectory) -> None:
    """The blob stays, the link goes (invariant 5)."""
    put_image(folder, X, "1", [b"shared"])
    put_image(folder, Y, "1", [b"shared"])
    remove(folder, "x:1")
    assert folder.blobs.has(Digest.of(b"shared"))
    assert folder.index.link(X, Digest.of(b"shared")) is None
    remove(folder, "quay.io/org/y:1")
    assert folder.blobs.stats() == (0, 0)


def test_removal_of_everything(folder: CacheDirectory) -> None:
    """A blob of several removed images goes with the last one."""
    put_image(folder, X, "1", [b"shared"])
    put_image(folder, Y, "1", [b"shared"])
    put_image(folder, Y, None, [b"by digest"])
    steps = remove(folder, "*")
    assert [len(step.images) for step in steps] == [1, 2]
    assert folder.blobs.stats() == (0, 0)
    assert folder.index.repositories("", "", 1) == []


def test_removal_of_one_tag_of_two(folder: CacheDirectory) -> None:
    """Nothing but the tag goes."""
    image = put_image(folder, X, "1", [b"a"])
    put_image(folder, X, "2", [b"a"])
    (step,) = remove(folder, "x:1")
    assert (step.tags, step.links, step.freed) == (("1",), (), 0)
    assert all(here(folder, image))
    assert folder.index.tag(X, Tag("1")) is None


def test_removal_refuses_pinned_images(folder: CacheDirectory) -> None:
    """Pinned images are named, and stay unless the removal is forced."""
    image = put_image(folder, X, "1", [b"a"])
    put_image(folder, X, "2", [b"b"])
    folder.pinning.pin(Pin.parse("x:1"))
    (step,) = remove(folder, "x:*")
    assert (step.images, step.pinned) == (("docker.io/library/x:2",), ("docker.io/library/x:1",))
    assert all(here(folder, image))
    (step,) = remove(folder, "x:1", forced=True)
    assert step.images == ("docker.io/library/x:1",)
    assert not any(here(folder, image))


def test_removal_without_a_match(folder: CacheDirectory) -> None:
    """There is no step."""
    put_image(folder, X, "1", [b"a"])
    assert remove(folder, "x:2") == remove(folder, "quay.io/*") == []


def test_removal_keeps_pinned_blobs_without_a_link(folder: CacheDirectory) -> None:
    """The disk may have been full when the link should have been written."""
    image = put_image(folder, X, "1", [b"shared"])
    put_image(folder, Y, "v1", [b"shared"])
    folder.pinning.pin(Pin.parse("x:1"))
    folder.index.drop_link(X, image[2])
    remove(folder, "quay.io/org/y:v1")
    assert all(here(folder, image))
