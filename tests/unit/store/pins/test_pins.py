"""Pins: what they keep, and for how long that is remembered."""

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


def test_a_pin_keeps_all_of_an_image(folder: CacheDirectory) -> None:
    """With what signs it; not its neighbours; and nothing once it is gone."""
    image = put_image(folder, X, "1", [b"a"])
    put_image(folder, X, "2", [b"b"])
    signature = put_signature(folder, X, image[0])
    folder.pin(Pin.parse("x:1"))
    assert kept(folder) == {*image, *signature}
    assert folder.unpin(ImagePattern.parse("x:1"))
    assert not folder.unpin(ImagePattern.parse("x:1"))
    assert kept(folder) == set()


def test_what_comes_later_is_pinned_too(folder: CacheDirectory) -> None:
    """A new tag, a tag that moves, a platform, a signature: each is kept when it is here."""
    folder.pin(Pin.parse("quay.io/org/*:v*"))
    first = put_image(folder, Y, "v1", [b"1"])
    assert kept(folder) == set(first)
    second = put_image(folder, Y, "v1", [b"2"])
    put_image(folder, Y, "w", [b"3"])
    assert kept(folder) == set(second)
    put_index(folder, Y, "v2", [[b"4"]])
    put_manifest(folder, Y, image_manifest(b"config0", [b"4"]))
    assert Digest.of(b"4") in kept(folder)
    assert set(put_signature(folder, Y, second[0])) <= kept(folder)
    folder.drop_tag(Y, Tag("v1"))
    assert not set(second[:1]) & kept(folder)


def test_what_is_pinned_ends_the_copies_in_memory(folder: CacheDirectory) -> None:
    """They may be of what was evicted; a pull that is served from them would leave nothing to keep."""
    before = folder.epoch.removals()
    folder.pin(Pin.parse("x:1"))
    assert folder.epoch.removals() != before


def test_only_some_platforms(folder: CacheDirectory) -> None:
    """Of an index; the others may go."""
    put_index(folder, X, "t", [[b"0"], [b"1"]])
    for number in (0, 1):
        put_manifest(folder, X, image_manifest(f"config{number}".encode(), [str(number).encode()]))
    folder.pin(Pin.parse("x:t linux/arch1"))
    assert Digest.of(b"1") in kept(folder)
    assert Digest.of(b"0") not in kept(folder)


def test_a_pin_by_digest(folder: CacheDirectory) -> None:
    """Whatever tag there is; in every repository that has it, if none is named."""
    image = put_image(folder, X, None, [b"a"])
    folder.pin(Pin.parse(f"x@{image[0]}"))
    assert kept(folder) == set(image)
    folder.unpin(ImagePattern.parse(f"x@{image[0]}"))
    folder.pin(Pin.parse(f"@{image[0]}"))
    assert kept(folder) == set(image)


def test_it_is_worked_out_again_only_when_it_has_changed(folder: CacheDirectory, tmp_path: Path) -> None:
    """By whatever process; what is pulled elsewhere does not matter."""
    put_image(folder, X, "1", [b"a"])
    folder.pin(Pin.parse("x:*"))
    known = folder.pins.pinned_sizes()
    put_image(folder, Y, "1", [b"b"])
    put_image(folder, X, "1", [b"a"])  # confirmed, as it was
    folder.pins.pinned_sizes()
    other = open_folder(tmp_path / "cache")
    folder.pins.pinned_sizes()
    changed = put_image(other, X, "2", [b"c"])
    assert set(changed) <= kept(folder)
    other.unpin(ImagePattern.parse("x:*"))
    assert kept(folder) == set()
    assert known
    other.close()


def test_pins_of_the_configuration(folder: CacheDirectory) -> None:
    """Are what it says, whatever it said before; those that were asked for stay."""
    folder.pin(Pin.parse("x:1"))
    folder.configure_pins([Pin.parse("x:2"), Pin.parse("x:3 linux/amd64")])
    folder.configure_pins([Pin.parse("x:3 linux/arm64")])
    pins = [(str(each.pin), each.configured) for each in folder.pins.all()]
    assert pins == [("docker.io/library/x:3 linux/arm64", True), ("docker.io/library/x:1", False)]


def test_pins_that_are_those_of_the_configuration_are_not_written_again(folder: CacheDirectory) -> None:
    """So that a mirror starts on a disk that is read-only as it does on another."""
    pins = [Pin.parse("x:2"), Pin.parse("x:3 linux/amd64")]
    folder.configure_pins(pins)
    written = (folder.path / "pins").stat().st_ino
    folder.configure_pins(pins)
    assert (folder.path / "pins").stat().st_ino == written
    folder.configure_pins(pins[:1])
    assert [each.pin for each in folder.pins.all()] == pins[:1]


def test_who_pins_an_image(folder: CacheDirectory) -> None:
    """By tag or digest."""
    folder.pin(Pin.parse("x:1"))
    assert [str(each.pin) for each in folder.pins.matching(X, "1", "d")] == ["docker.io/library/x:1"]
    assert folder.pins.matching(X, "2", "d") == []


def test_a_manifest_that_is_lost_does_not_unpin_what_it_named(folder: CacheDirectory, tmp_path: Path) -> None:
    """It was corrupt, say, and set aside: until it is fetched anew its layers stay, whoever evicts."""
    image = put_image(folder, X, "1", [b"a"])
    folder.pin(Pin.parse("x:1"))
    folder.evict()
    folder.blobs.remove(image[0])
    other = open_folder(tmp_path / "cache", max_size=1)
    assert kept(other) == set(image)
    age(other, *image)
    assert other.evict() == []
    other.close()


def test_what_was_pinned_stays_when_the_books_are_lost(folder: CacheDirectory, tmp_path: Path) -> None:
    """Though nobody knows what tags pointed to; until it is known again, or the pin goes."""
    image, other = put_image(folder, X, "1", [b"a"]), put_image(folder, Y, "v1", [b"b"])
    for each in ("x:1", "quay.io/org/y:v1"):
        folder.pin(Pin.parse(each))
    folder.evict()
    (tmp_path / "cache" / "books" / "cache.db").write_bytes(b"no database" * 1000)
    for name in ("cache.db-wal", "cache.db-shm"):
        (tmp_path / "cache" / "books" / name).unlink(missing_ok=True)
    reopen_elsewhere = open_folder(tmp_path / "cache", max_size=1)
    assert [str(each.pin) for each in reopen_elsewhere.pins.all()] == [
        "docker.io/library/x:1",
        "quay.io/org/y:v1",
    ]
    age(reopen_elsewhere, *image, *other)
    for _ in range(2):
        assert reopen_elsewhere.evict() == []
        put_image(reopen_elsewhere, X, "1", [b"a"])
    assert kept(reopen_elsewhere) == {*image, *other}
    put_image(reopen_elsewhere, Y, "v1", [b"b"])
    reopen_elsewhere.evict()
    assert not (tmp_path / "cache" / BOOKS_LOST).exists()
    reopen_elsewhere.drop_tag(X, Tag("1"))
    assert kept(reopen_elsewhere) == set(other)
    reopen_elsewhere.close()


def test_a_pin_that_goes_after_the_books_were_lost(folder: CacheDirectory) -> None:
    """Nothing is kept for it any more."""
    put_image(folder, X, "1", [b"a"])
    folder.pin(Pin.parse("x:1"))
    folder.evict()
    folder.drop_tag(X, Tag("1"))
    (folder.path / BOOKS_LOST).touch()
    folder.epoch.note_pin_change()
    assert kept(folder)
    folder.unpin(ImagePattern.parse("x:1"))
    assert kept(folder) == set()
    assert not (folder.path / BOOKS_LOST).exists()
