"""What is collected, and what is not."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.manage import garbage_collector
from mirror.manage.garbage_collector import GarbageCollector
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.oci.reference import Tag
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.cached import X, Y, age, interrupt, open_folder, put_blob, put_image, put_index, put_manifest
from tests.fakes.content import image_manifest

TOMORROW = time.time() + 2 * 24 * 3600


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache", max_size=100_000)
    yield opened
    opened.close()


def collect(folder: CacheDirectory, now: float = TOMORROW) -> Counter[str]:
    """What was said beforehand is what is done, and nothing is left to be done."""
    said = list(GarbageCollector(folder, dry_run=True, now=now).items())
    done = list(GarbageCollector(folder, dry_run=False, now=now).items())
    assert said == done
    assert list(GarbageCollector(folder, dry_run=False, now=now).items()) == []
    return Counter(each.kind for each in done)


def test_what_is_used_is_no_garbage(folder: CacheDirectory) -> None:
    """Whole images, those of which blobs are missing, an index with one platform."""
    image = put_image(folder, X, "1", [b"a", b"b"])
    folder.blobs.remove(image[2])
    put_index(folder, Y, "1", [[b"0"], [b"1"]])
    put_manifest(folder, Y, image_manifest(b"config1", [b"1"]))
    assert collect(folder) == {}
    assert folder.index.link(X, image[2]) is not None


def test_what_belongs_to_nothing(folder: CacheDirectory) -> None:
    """A file, an entry, a blob, a partial."""
    put_image(folder, X, "1", [b"a"])
    put_blob(folder, b"of nobody")
    lost = put_blob(folder, b"lost")
    (path,) = folder.blobs.folder.rglob(f"{lost.encoded[2:]}.*")
    path.rename(path.with_suffix(".other"))
    partial, _ = folder.lock_partial(X, Digest.of(b"partial"))
    interrupt(partial)
    assert collect(folder, time.time()) == {garbage_collector.ENTRY: 1}
    path.parent.joinpath(f"{lost.encoded[2:]}.more").write_bytes(b"lost")
    assert collect(folder) == {
        garbage_collector.FILE: 2,
        garbage_collector.BLOB: 1,
        garbage_collector.PARTIAL: 1,
    }
    assert folder.blobs.check() == []
    assert list(folder.partials.iterdir()) == []


def test_what_is_known_of_images_that_are_gone(folder: CacheDirectory) -> None:
    """Tags and links, once the manifest was evicted; not where it is pinned, or known since a moment."""
    gone, pinned = put_image(folder, X, "1", [b"a"]), put_image(folder, Y, "1", [b"b"])
    folder.pin(Pin.parse("quay.io/org/y:1"))
    for each in (*gone, pinned[0]):
        folder.blobs.remove(each)
    assert collect(folder, time.time()) == {}
    generation = folder.epoch.removals()
    assert collect(folder)[garbage_collector.TAG] == 1
    assert folder.epoch.removals() != generation
    assert folder.index.repositories("", "", 9) == [str(Y)]
    assert folder.index.tag(Y, Tag("1")) is not None


def test_the_quota(folder: CacheDirectory) -> None:
    """Least recently used first; beforehand it is said how much."""
    image = put_image(folder, X, "1", [bytes(90_000)])
    other = put_image(folder, Y, "1", [b"1" * 90_000])
    age(folder, *image, *other)
    (said,) = GarbageCollector(folder, dry_run=True).items()
    assert (said.kind, said.size) == (garbage_collector.QUOTA, folder.excess())
    done = [each.name for each in GarbageCollector(folder, dry_run=False).items()]
    assert str(image[2]) in done
    assert str(other[2]) not in done
