"""The file system check: finds and repairs each kind of damage, and deletes no damaged file."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs import fsck
from mirror.store.blobs.fsck import Damage, Finding, Fsck, FsckCursor
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.blob_table import BlobRow
from tests.unit.store.blobs.test_blobs import file_of
from tests.unit.store.test_eviction import put


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CacheDirectory]:
    """Open a folder with three blobs, none too young to be checked."""
    monkeypatch.setattr(fsck, "GRACE_SECONDS", -1.0)
    opened = CacheDirectory(tmp_path / "cache")
    for data in (b"one", b"two", b"three"):
        put(opened, tmp_path, data)
    yield opened
    opened.close()


def run(folder: CacheDirectory, cursor: FsckCursor | None = None, *, repair: bool = False) -> list[Finding]:
    checked = Fsck(folder.path / "blobs", folder.blobs, cursor or FsckCursor(), repair=repair)
    return [step.finding for step in checked.steps() if step.finding is not None]


def corrupt_file(folder: CacheDirectory, data: bytes, wrong: bytes) -> Path:
    path = file_of(folder.path, Digest.of(data))
    path.chmod(0o600)
    path.write_bytes(wrong)
    return path


def quarantined(folder: CacheDirectory) -> list[bytes]:
    place = folder.path / "quarantine"
    return [each.read_bytes() for each in place.iterdir()] if place.exists() else []


def test_fsck_of_an_intact_store_finds_nothing(folder: CacheDirectory) -> None:
    """Every byte was read, every blob counted."""
    cursor = FsckCursor()
    assert run(folder, cursor) == []
    assert (cursor.checked, cursor.bytes, cursor.wrong, cursor.leftovers) == (3, 11, 0, 0)
    quick = FsckCursor(quick=True)
    assert (run(folder, quick), quick.bytes) == ([], 0)


@pytest.mark.parametrize(("wrong", "quick", "kind"), [
    (b"four", True, Damage.SIZE),
    (b"four", False, Damage.SIZE),
    (b"owt", False, Damage.DIGEST),
    (b"owt", True, None),
])  # fmt: skip
def test_fsck_finds_a_corrupt_file(
    folder: CacheDirectory, wrong: bytes, quick: bool, kind: Damage | None
) -> None:
    """Each run reports the file; a repair quarantines it.

    The blob is then a miss. A quick run looks at sizes only.
    """
    corrupt_file(folder, b"two", wrong)
    digest = Digest.of(b"two")
    found = [Finding(str(digest), kind)] if kind else []
    for _ in range(2):
        assert run(folder, FsckCursor(quick=quick)) == found
    done = [Finding(str(digest), kind, "entry removed, file quarantined", quarantined=True)] if kind else []
    assert run(folder, FsckCursor(quick=quick), repair=True) == done
    assert folder.reader.has(digest) == (kind is None)
    assert quarantined(folder) == ([wrong] if kind else [])
    assert run(folder, FsckCursor(quick=quick)) == []


def test_fsck_removes_the_entry_of_a_missing_file(folder: CacheDirectory) -> None:
    """The entry goes with a repair."""
    digest = Digest.of(b"two")
    file_of(folder.path, digest).unlink()
    assert run(folder) == [Finding(str(digest), Damage.MISSING)]
    assert run(folder, repair=True) == [Finding(str(digest), Damage.MISSING, "entry removed")]
    assert (run(folder), folder.reader.has(digest)) == ([], False)


def test_fsck_adds_a_missing_entry(folder: CacheDirectory) -> None:
    """An intact file gets an entry, a corrupt one goes to quarantine; a young one is skipped."""
    digest, other = Digest.of(b"two"), Digest.of(b"one")
    for each in (digest, other):
        (row,) = [row for row in folder.blobs.table.rows("", 9) if row.digest == str(each)]
        folder.blobs.drop_entry(row)
    wrong = corrupt_file(folder, b"one", b"eno")
    names = {each.relative_to(folder.path / "blobs") for each in (wrong, file_of(folder.path, digest))}
    cursor = FsckCursor()
    assert {(each.subject, each.damage) for each in run(folder, cursor)} == {
        (str(wrong.relative_to(folder.path / "blobs")), Damage.DIGEST),
        (str(file_of(folder.path, digest).relative_to(folder.path / "blobs")), Damage.NO_ENTRY),
    }
    assert (len(names), cursor.wrong, cursor.leftovers) == (2, 1, 1)
    run(folder, repair=True)
    assert (run(folder), folder.blobs.check()) == ([], [])
    assert (folder.reader.read(digest, 9), folder.reader.has(other), quarantined(folder)) == (
        b"two",
        False,
        [b"eno"],
    )
    assert folder.blobs.stats() == (8, 2)


def test_fsck_skips_young_files(folder: CacheDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file comes before its entry (invariant 8)."""
    monkeypatch.setattr(fsck, "GRACE_SECONDS", 60.0)
    for row in folder.blobs.table.rows("", 9):
        folder.blobs.drop_entry(row)
    assert run(folder, repair=True) == []


def test_fsck_removes_a_duplicate(folder: CacheDirectory) -> None:
    """The file without an entry goes; not in a quick run, which verified neither."""
    path = file_of(folder.path, Digest.of(b"two"))
    twin = path.with_name(f"{path.name.partition('.')[0]}.00000000")
    twin.write_bytes(b"two")
    name = str(twin.relative_to(folder.path / "blobs"))
    assert run(folder, FsckCursor(quick=True), repair=True) == [Finding(name, Damage.DUPLICATE)]
    assert run(folder, repair=True) == [Finding(name, Damage.DUPLICATE, "removed")]
    assert (run(folder), path.exists(), twin.exists()) == ([], True, False)


def test_fsck_quarantines_foreign_files(folder: CacheDirectory, tmp_path: Path) -> None:
    """A foreign file goes to quarantine; an entry that names another place is removed, and nothing else."""
    stranger = folder.path / "blobs" / "sha256" / "zz"
    stranger.mkdir()
    (stranger / "notes").write_text("hello")
    (tmp_path / "precious").write_text("precious")
    folder.blobs.add_entry(BlobRow("sha256:" + "0" * 64, "../../precious", 8))
    assert [(each.subject, each.damage) for each in run(folder, repair=True)] == [
        ("sha256:" + "0" * 64, Damage.FOREIGN),
        ("sha256/zz/notes", Damage.UNKNOWN),
    ]
    assert (tmp_path / "precious").read_text() == "precious"
    assert (quarantined(folder), run(folder)) == ([b"hello"], [])


def test_fsck_checks_suspicions_twice(folder: CacheDirectory) -> None:
    """A blob that was evicted or fetched again meanwhile is not missing."""
    checked = Fsck(folder.path / "blobs", folder.blobs, FsckCursor(), repair=True)
    steps = checked.steps()
    next(steps)
    folder.blobs.evictions.evict(time.time() + 1, None, [])
    assert [step.finding for step in steps if step.finding] == []


def test_fsck_resumes_at_its_cursor(folder: CacheDirectory, tmp_path: Path) -> None:
    """A run resumes in any phase, with its findings; a run of another kind starts from the beginning."""
    corrupt_file(folder, b"two", b"owt")
    whole, place = FsckCursor(), tmp_path / "cursor"
    run(folder, whole)
    for stop in range(12):
        cursor = FsckCursor()
        steps = Fsck(folder.path / "blobs", folder.blobs, cursor, repair=False).steps()
        for _ in range(stop):
            next(steps, None)
        cursor.save(place)
        again = FsckCursor.load(place, quick=False)
        run(folder, again)
        assert (again.checked, again.wrong) == (whole.checked, 1)
    assert FsckCursor.load(place, quick=True).checked == 0
    place.write_text("{")
    assert FsckCursor.load(place, quick=False).checked == 0
    assert os.listdir(tmp_path / "cache" / "blobs")


def test_fsck_survives_foreign_files(folder: CacheDirectory) -> None:
    """Folders, sockets, loops, and files beside the shards are reported; a repair quarantines them."""
    blobs, two = folder.path / "blobs", Digest.of(b"two")
    (blobs / "strange").write_bytes(b"x")
    (blobs / "sha256" / "strange").write_bytes(b"x")
    path = file_of(folder.path, two)
    path.unlink()
    path.symlink_to(path.name)
    shard = blobs / "sha256" / "ab"
    shard.mkdir(exist_ok=True)
    (shard / f"{'0' * 62}.00000000").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(shard / "socket"))
    found = {each.subject: each.damage for each in run(folder)}
    assert found == {
        str(two): Damage.UNKNOWN,
        "strange": Damage.UNKNOWN,
        "sha256/strange": Damage.UNKNOWN,
        f"sha256/ab/{'0' * 62}.00000000": Damage.UNKNOWN,
        "sha256/ab/socket": Damage.UNKNOWN,
    }
    assert {each.subject for each in run(folder, repair=True)} >= {"strange", "sha256/strange", str(two)}
    assert run(folder) == []
