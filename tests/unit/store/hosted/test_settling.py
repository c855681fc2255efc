"""Power failures: what the disk has lost of acknowledged pushes is there again when the folder is opened."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted import settling
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.journal_file import record
from mirror.store.hosted.opened import open_cache, settle_old
from mirror.store.hosted.push_journal import FOLDER, JOURNALED_BYTES
from mirror.store.hosted.push_writer import PushWriter
from mirror.store.hosted.pushes import PushedManifest
from tests.hosting import APP

FIRST, SECOND = b'{"number":1}', b'{"number":2}'


def pushed(data: bytes, tag: str = "latest") -> PushedManifest:
    return PushedManifest(APP, Digest.of(data), data, OCI_MANIFEST, (Tag(tag),))


class Place:
    """A cache folder with a writer; `copy` is what is on the disk for certain, `fail` the power failure."""

    def __init__(self, path: Path) -> None:
        self.path, self._copy = path / "cache", path / "copy"
        self.folder = open_cache(self.path)
        self.index = HostedIndex(self.folder)
        self.index.names.register(["office"], [])
        self.writer = PushWriter(self.folder, self.index)

    def push(self, *pushes: PushedManifest) -> None:
        assert all(isinstance(each, list) for each in self.writer.put_manifests(pushes))

    def copy(self) -> None:
        """Note what is on the disk now, but for the journal."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self.path, self._copy)

    def file(self, data: bytes) -> Path:
        row = self.folder.blobs.table.row(str(Digest.of(data)))
        assert row is not None
        return self.folder.blobs.folder / row.name

    def fail(self, *lost: str) -> CacheDirectory:
        """Lose what was written into folders since the copy, and begin again."""
        self.writer._journal.close()
        self.folder.close()
        for name in lost:
            shutil.rmtree(self.path / name)
            shutil.copytree(self._copy / name, self.path / name)
        self.folder = open_cache(self.path)
        return self.folder

    def journal(self) -> list[Path]:
        return sorted((self.path / FOLDER).iterdir())

    def tagged(self, tag: str = "latest") -> bytes | None:
        """Return the manifest of a tag; None if there is none, or if its link or its file is lost."""
        entry = self.folder.index.tag(APP, Tag(tag))
        found = None if entry is None else self.folder.reader.manifest(APP, Digest.parse(entry.digest))
        return None if found is None else found.data


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.folder.close()


def cut(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"")


def spoil(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [Path.unlink, cut, spoil])
def test_settling_writes_lost_files_again(place: Place, damage: Callable[[Path], object]) -> None:
    """A file whose name, length or bytes were not on the disk."""
    place.push(pushed(FIRST, "a"), pushed(SECOND, "b"))
    damage(place.file(FIRST))
    place.fail()
    assert (place.tagged("a"), place.tagged("b")) == (FIRST, SECOND)
    assert place.journal() == []
    assert place.file(FIRST).stat().st_mode & 0o777 == 0o400
    assert place.folder.blobs.check() == []


@pytest.mark.parametrize("lost", [("books",), ("blobs",), ("books", "blobs")])
def test_settling_puts_lost_pushes_again(place: Place, lost: tuple[str, ...]) -> None:
    """The rows of the index, those of the blobs with their files, or all of them; sums are right then."""
    place.push(pushed(FIRST, "old"))
    place.copy()
    place.push(pushed(FIRST, "first"))
    place.push(pushed(SECOND, "second"), pushed(SECOND))
    folder = place.fail(*lost)
    assert [place.tagged(each) for each in ("old", "first", "second", "latest")] == [
        *(FIRST, FIRST, SECOND, SECOND)
    ]
    index = HostedIndex(folder)
    assert index.queries.held("office/app") == len(FIRST) + len(SECOND)
    assert folder.blobs.retention.totals() == (len(FIRST) + len(SECOND), 2)


def test_settling_keeps_the_order_of_pushes_and_deletions(place: Place) -> None:
    """Nothing that came later is undone: neither another push of the tag, nor a deletion."""
    place.copy()
    place.push(pushed(FIRST))
    place.push(pushed(SECOND))
    place.push(pushed(FIRST, "gone"))
    place.index.delete_tag(APP, Tag("gone"))
    place.fail()
    assert (place.tagged(), place.tagged("gone")) == (SECOND, None)
    place.push(pushed(FIRST, "again"))
    place.copy()
    place.index.remove(APP, ["latest", "again"], [Digest.of(FIRST), Digest.of(SECOND)])
    place.fail()
    assert (place.tagged(), place.tagged("again")) == (None, None)


def test_settling_leaves_a_push_that_others_have_overtaken(place: Place) -> None:
    """A process died between journal and transaction: its client has no answer, and others wrote since."""

    def die(number: int, moment: float, pushes: Sequence[PushedManifest]) -> None:
        place.writer._journal.add(number, moment, pushes)
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        place.index.put_manifests([pushed(FIRST)], die)
    assert place.tagged() is None
    other = PushWriter(place.folder, place.index)
    other.put_manifests([pushed(SECOND)])
    other._journal.close()
    place.fail()
    assert place.tagged() == SECOND


def test_settling_leaves_the_file_of_a_living_writer(place: Place) -> None:
    """Another process opens the folder while this one writes; what is old is settled once it is closed."""
    place.push(pushed(FIRST))
    with closing(open_cache(place.path)):
        assert len(place.journal()) == 1
    settle_old(place.folder)
    place.writer._journal.close()
    settle_old(place.folder)
    assert len(place.journal()) == 1
    settling.Settlement(place.folder).settle_old(time.time() + 100)
    assert place.journal() == []
    assert place.tagged() == FIRST


def test_settling_does_not_wait_where_there_is_much(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "MOST_FILES", 1)
    for number in range(3):
        place.push(pushed(FIRST, f"t{number}"))
        place.writer._journal.close()
    settle_old(place.folder)
    assert len(place.journal()) == 1


def test_settling_is_tried_again_on_a_disk_that_failed(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The mirror starts nevertheless."""
    place.push(pushed(FIRST))
    place.file(FIRST).unlink()
    with monkeypatch.context() as broken:
        broken.setattr(settling, "sync_folder", _fail)
        place.fail()
    assert len(place.journal()) == 1
    place.fail()
    assert place.tagged() == FIRST
    assert place.journal() == []


def _fail(_: Path) -> None:
    raise sqlite3.OperationalError("disk I/O error")


def test_settling_leaves_long_manifests_alone(place: Place) -> None:
    """The file of a long manifest was on the disk before the answer."""
    long = b'{"text":"' + b"x" * JOURNALED_BYTES + b'"}'
    place.copy()
    place.push(pushed(long))
    place.fail("books")
    assert place.tagged() == long


def test_settling_reads_no_foreign_file(place: Place) -> None:
    """A file that is no journal holds nothing, and is removed."""
    place.push(pushed(FIRST))
    (place.path / FOLDER / "0").write_bytes(b"PUSH" + bytes(100))
    place.fail()
    assert place.tagged() == FIRST
    assert place.journal() == []


@pytest.mark.parametrize("content", [b"\xc1", msgspec.msgpack.encode({"number": 1, "later": True})])
def test_file_of_another_version_is_set_aside(place: Place, content: bytes) -> None:
    """The mirror starts, and settles the rest."""
    place.copy()
    place.push(pushed(FIRST))
    odd = place.path / FOLDER / "0"
    odd.write_bytes(record(content))
    place.fail("books", "blobs")
    assert place.tagged() == FIRST
    assert [each.name for each in place.journal()] == ["0.unreadable"]
    settle_old(place.folder)
    assert [each.name for each in place.journal()] == ["0.unreadable"]
