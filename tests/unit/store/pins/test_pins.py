"""Pins: what they keep, and how long that is cached."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.reference import Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.pins.manifest_journal import BOOKS_LOST
from tests.fakes.cached import (
    X,
    Y,
    age,
    open_folder,
    put_image,
    put_index,
    put_manifest,
    put_signature,
)
from tests.fakes.content import image_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    yield opened
    opened.close()


def kept(folder: CacheDirectory) -> set[Digest]:
    return {Digest.parse(each) for each in folder.pins.pinned_sizes()}


def test_pin_keeps_a_whole_image(folder: CacheDirectory) -> None:
    """Signatures stay too, neighbours do not; and nothing once the pin is gone."""
    image = put_image(folder, X, "1", [b"a"])
    put_image(folder, X, "2", [b"b"])
    signature = put_signature(folder, X, image[0])
    folder.pinning.pin(Pin.parse("x:1"))
    assert kept(folder) == {*image, *signature}
    assert folder.pinning.unpin(ImagePattern.parse("x:1"))
    assert not folder.pinning.unpin(ImagePattern.parse("x:1"))
    assert kept(folder) == set()


def test_pin_keeps_later_content(folder: CacheDirectory) -> None:
    """A new tag, a tag that moves, a platform, a signature: each is kept once it is here."""
    folder.pinning.pin(Pin.parse("quay.io/org/*:v*"))
    first = put_image(folder, Y, "v1", [b"1"])
    assert kept(folder) == set(first)
    second = put_image(folder, Y, "v1", [b"2"])
    put_image(folder, Y, "w", [b"3"])
    assert kept(folder) == set(second)
    put_index(folder, Y, "v2", [[b"4"]])
    put_manifest(folder, Y, image_manifest(b"config0", [b"4"]))
    assert Digest.of(b"4") in kept(folder)
    assert set(put_signature(folder, Y, second[0])) <= kept(folder)
    folder.writer.drop_tag(Y, Tag("v1"))
    assert not set(second[:1]) & kept(folder)


def test_pin_drops_copies_in_memory(folder: CacheDirectory) -> None:
    """Copies may be of evicted content; a pull served from them would leave nothing to keep."""
    before = folder.epoch.removals()
    folder.pinning.pin(Pin.parse("x:1"))
    assert folder.epoch.removals() != before


def test_pin_of_some_platforms(folder: CacheDirectory) -> None:
    """The other platforms of an index may go."""
    put_index(folder, X, "t", [[b"0"], [b"1"]])
    for number in (0, 1):
        put_manifest(folder, X, image_manifest(f"config{number}".encode(), [str(number).encode()]))
    folder.pinning.pin(Pin.parse("x:t linux/arch1"))
    assert Digest.of(b"1") in kept(folder)
    assert Digest.of(b"0") not in kept(folder)


def test_pin_by_digest(folder: CacheDirectory) -> None:
    """Tags do not matter; without a repository, every one that has the digest counts."""
    image = put_image(folder, X, None, [b"a"])
    folder.pinning.pin(Pin.parse(f"x@{image[0]}"))
    assert kept(folder) == set(image)
    folder.pinning.unpin(ImagePattern.parse(f"x@{image[0]}"))
    folder.pinning.pin(Pin.parse(f"@{image[0]}"))
    assert kept(folder) == set(image)


def test_pinned_sizes_are_cached_until_a_change(folder: CacheDirectory, tmp_path: Path) -> None:
    """A change by any process counts; pulls of other images do not."""
    put_image(folder, X, "1", [b"a"])
    folder.pinning.pin(Pin.parse("x:*"))
    known = folder.pins.pinned_sizes()
    put_image(folder, Y, "1", [b"b"])
    put_image(folder, X, "1", [b"a"])  # confirmed, unchanged
    folder.pins.pinned_sizes()
    other = open_folder(tmp_path / "cache")
    folder.pins.pinned_sizes()
    changed = put_image(other, X, "2", [b"c"])
    assert set(changed) <= kept(folder)
    other.pinning.unpin(ImagePattern.parse("x:*"))
    assert kept(folder) == set()
    assert known
    other.close()


def test_pins_of_the_configuration_are_replaced(folder: CacheDirectory) -> None:
    """The present configuration counts, and no earlier one; pins by command stay."""
    folder.pinning.pin(Pin.parse("x:1"))
    folder.pinning.configure_pins([Pin.parse("x:2"), Pin.parse("x:3 linux/amd64")])
    folder.pinning.configure_pins([Pin.parse("x:3 linux/arm64")])
    pins = [(str(each.pin), each.configured) for each in folder.pins.all()]
    assert pins == [("docker.io/library/x:3 linux/arm64", True), ("docker.io/library/x:1", False)]


def test_pins_of_the_configuration_are_written_on_change_only(folder: CacheDirectory) -> None:
    """A mirror with unchanged pins starts on a read-only disk."""
    pins = [Pin.parse("x:2"), Pin.parse("x:3 linux/amd64")]
    folder.pinning.configure_pins(pins)
    written = (folder.path / "pins").stat().st_ino
    folder.pinning.configure_pins(pins)
    assert (folder.path / "pins").stat().st_ino == written
    folder.pinning.configure_pins(pins[:1])
    assert [each.pin for each in folder.pins.all()] == pins[:1]


def test_pins_matching_an_image(folder: CacheDirectory) -> None:
    """An image is found by tag or digest."""
    folder.pinning.pin(Pin.parse("x:1"))
    assert [str(each.pin) for each in folder.pins.matching(X, "1", "d")] == ["docker.io/library/x:1"]
    assert folder.pins.matching(X, "2", "d") == []


def test_pin_keeps_children_of_a_lost_manifest(folder: CacheDirectory, tmp_path: Path) -> None:
    """The manifest was quarantined, say: its layers survive evictions until it is fetched again."""
    image = put_image(folder, X, "1", [b"a"])
    folder.pinning.pin(Pin.parse("x:1"))
    folder.evictor.evict()
    folder.blobs.remove(image[0])
    other = open_folder(tmp_path / "cache", max_size=1)
    assert kept(other) == set(image)
    age(other, *image)
    assert other.evictor.evict() == []
    other.close()


def test_pin_keeps_children_that_another_process_knew(folder: CacheDirectory, tmp_path: Path) -> None:
    """A process that has looked at the pins before the image came learns of the layers from the others."""
    other = open_folder(tmp_path / "cache", max_size=1)
    folder.pinning.pin(Pin.parse("x:1"))
    assert kept(other) == set()
    image = put_image(folder, X, "1", [b"a"])
    folder.evictor.evict()
    folder.blobs.remove(image[0])
    age(other, *image)
    assert other.evictor.evict() == []
    assert kept(other) == set(image)
    other.close()


def test_pin_keeps_content_when_the_index_is_lost(folder: CacheDirectory, tmp_path: Path) -> None:
    """Tags are unknown then; the content stays until they are known again, or the pin goes."""
    image, other = put_image(folder, X, "1", [b"a"]), put_image(folder, Y, "v1", [b"b"])
    for each in ("x:1", "quay.io/org/y:v1"):
        folder.pinning.pin(Pin.parse(each))
    folder.evictor.evict()
    (tmp_path / "cache" / "books" / "cache.db").write_bytes(b"no database" * 1000)
    for name in ("cache.db-wal", "cache.db-shm"):
        (tmp_path / "cache" / "books" / name).unlink(missing_ok=True)
    reopened = open_folder(tmp_path / "cache", max_size=1)
    assert [str(each.pin) for each in reopened.pins.all()] == [
        "docker.io/library/x:1",
        "quay.io/org/y:v1",
    ]
    age(reopened, *image, *other)
    for _ in range(2):
        assert reopened.evictor.evict() == []
        put_image(reopened, X, "1", [b"a"])
    assert kept(reopened) == {*image, *other}
    put_image(reopened, Y, "v1", [b"b"])
    reopened.evictor.evict()
    assert not (tmp_path / "cache" / BOOKS_LOST).exists()
    reopened.writer.drop_tag(X, Tag("1"))
    assert kept(reopened) == set(other)
    reopened.close()


def test_pin_removed_after_the_index_was_lost(folder: CacheDirectory) -> None:
    """Nothing is kept for the pin any more."""
    put_image(folder, X, "1", [b"a"])
    folder.pinning.pin(Pin.parse("x:1"))
    folder.evictor.evict()
    folder.writer.drop_tag(X, Tag("1"))
    (folder.path / BOOKS_LOST).touch()
    folder.epoch.note_pin_change()
    assert kept(folder)
    folder.pinning.unpin(ImagePattern.parse("x:1"))
    assert kept(folder) == set()
    assert not (folder.path / BOOKS_LOST).exists()
