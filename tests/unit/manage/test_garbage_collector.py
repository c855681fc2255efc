"""Garbage collection: what is collected, and what stays."""

import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.config.cache_rules import CacheRuleSettings
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
    """Collect, after a dry run that must say the same; a second run finds nothing."""
    said = list(GarbageCollector(folder, dry_run=True, now=now).items())
    done = list(GarbageCollector(folder, dry_run=False, now=now).items())
    assert said == done
    assert list(GarbageCollector(folder, dry_run=False, now=now).items()) == []
    return Counter(each.kind for each in done)


def test_garbage_collection_keeps_images(folder: CacheDirectory) -> None:
    """Whole images, images with missing blobs, an index with one platform."""
    image = put_image(folder, X, "1", [b"a", b"b"])
    folder.blobs.remove(image[2])
    put_index(folder, Y, "1", [[b"0"], [b"1"]])
    put_manifest(folder, Y, image_manifest(b"config1", [b"1"]))
    assert collect(folder) == {}
    assert folder.index.link(X, image[2]) is not None


def test_garbage_collection_removes_orphans(folder: CacheDirectory) -> None:
    """A file, an entry, a blob, a partial."""
    put_image(folder, X, "1", [b"a"])
    put_blob(folder, b"of nobody")
    lost = put_blob(folder, b"lost")
    (path,) = folder.blobs.folder.rglob(f"{lost.encoded[2:]}.*")
    path.rename(path.with_suffix(".other"))
    partial, _ = folder.fills.lock_partial(X, Digest.of(b"partial"))
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


def test_garbage_collection_enforces_shares(folder: CacheDirectory) -> None:
    """The blob used least recently of the repository beyond its share goes, and none of another one."""
    layers = [bytes([number]) * 20_000 for number in range(3)]
    put_image(folder, X, "1", layers)
    put_image(folder, Y, "1", [b"y" * 30_000])
    for number, layer in enumerate(layers, 1):
        folder.blobs.table.touch({Digest.of(layer): float(number)})
    assert collect(folder) == {}
    folder.rules = (CacheRuleSettings.model_validate({"repositories": str(X), "max_share": "50%"}),)
    assert collect(folder) == {garbage_collector.SHARE: 1}
    assert [folder.reader.has(Digest.of(layer)) for layer in layers] == [False, True, True]


def test_garbage_collection_drops_metadata_of_lost_images(folder: CacheDirectory) -> None:
    """Tags and links, once the manifest was evicted; not where it is pinned, or known since a moment."""
    gone, pinned = put_image(folder, X, "1", [b"a"]), put_image(folder, Y, "1", [b"b"])
    folder.pinning.pin(Pin.parse("quay.io/org/y:1"))
    for each in (*gone, pinned[0]):
        folder.blobs.remove(each)
    assert collect(folder, time.time()) == {}
    generation = folder.epoch.removals()
    assert collect(folder)[garbage_collector.TAG] == 1
    assert folder.epoch.removals() != generation
    assert folder.index.repositories("", "", 9) == [str(Y)]
    assert folder.index.tag(Y, Tag("1")) is not None


def test_garbage_collection_that_fails_tells_of_its_removals(folder: CacheDirectory) -> None:
    """No process goes on serving from memory what was removed before the error."""
    for repository in (X, Y):
        for each in put_image(folder, repository, "1", [str(repository).encode()]):
            folder.blobs.remove(each)
    folder.index.database.query(
        "CREATE TRIGGER refuse BEFORE DELETE ON Cache WHEN OLD.key LIKE 'link:quay.io%'"
        " BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )
    before = (folder.epoch.removals(), folder.epoch.pin_changes())
    with pytest.raises(sqlite3.IntegrityError, match="refused"):
        collect(folder)
    assert folder.index.repositories("", "", 9) == [str(Y)]
    assert folder.epoch.removals() != before[0]
    assert folder.epoch.pin_changes() != before[1]
    folder.index.database.query("DROP TRIGGER refuse")


def test_garbage_collection_goes_by_the_quota(folder: CacheDirectory) -> None:
    """Least recently used first; the dry run names the same blobs."""
    image = put_image(folder, X, "1", [bytes(90_000)])
    other = put_image(folder, Y, "1", [b"1" * 90_000])
    age(folder, *image, *other)
    excess = folder.evictor.excess()
    said = list(GarbageCollector(folder, dry_run=True).items())
    assert {each.kind for each in said} == {garbage_collector.QUOTA}
    assert sum(each.size for each in said) >= excess
    done = list(GarbageCollector(folder, dry_run=False).items())
    assert done == said
    assert str(image[2]) in [each.name for each in done]
    assert str(other[2]) not in [each.name for each in done]


def test_garbage_collection_counts_a_dry_runs_removals(folder: CacheDirectory) -> None:
    """Garbage that makes enough room is not followed by evictions, removed or not."""
    image = put_image(folder, X, "1", [b"1" * 60_000])
    lost = put_blob(folder, b"2" * 60_000)
    age(folder, *image, lost)
    assert folder.evictor.excess() > 0
    assert collect(folder) == {garbage_collector.BLOB: 1}


def test_garbage_collection_survives_foreign_files(folder: CacheDirectory) -> None:
    """Folders, sockets and loops where files should be are reported, and stay; the rest is collected."""
    put_image(folder, X, "1", [b"a"])
    put_blob(folder, b"of nobody")
    blobs, key = folder.blobs.folder, f"sha256-{Digest.of(b'x').encoded}"
    (blobs / "strange").write_bytes(b"x")
    (blobs / "sha256" / "strange").write_bytes(b"x")
    shard = blobs / "sha256" / "ab"
    shard.mkdir(exist_ok=True)
    (shard / "folder").mkdir()
    (shard / "no digest").write_bytes(b"x")
    (folder.partials / f"{key}.data").mkdir()
    (folder.partials / f"{key}.map").mkdir()
    (folder.partials / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(shard / "socket"))
        assert collect(folder) == {garbage_collector.FILE: 1, garbage_collector.BLOB: 1}
        foreign = GarbageCollector(folder, dry_run=False).foreign()
    assert [str(path.relative_to(folder.path)) for path in foreign] == [
        "blobs/strange",
        "blobs/sha256/ab/folder",
        "blobs/sha256/ab/socket",
        "blobs/sha256/strange",
        "partial/loop",
        f"partial/{key}.data",
        f"partial/{key}.map",
    ]
