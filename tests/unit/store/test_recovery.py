"""Recovery: the layout is stamped, refused if it is newer, and recreated where it is gone."""

import os
import sqlite3
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import StoreError
from mirror.store.health import Capability
from mirror.store.recovery import REBUILD, VERSION, check_version
from tests.folders import open_to_all
from tests.unit.store.test_eviction import put


def test_version_is_stamped_in_a_new_folder(tmp_path: Path) -> None:
    """The stamp is written once and whole, and found again."""
    for _ in range(2):
        check_version(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["version"]
    assert (tmp_path / "version").read_text() == f"{VERSION}\n"


def test_version_that_is_newer_is_refused(tmp_path: Path) -> None:
    """The error has both versions, and what to do; a stamp that is no version is replaced."""
    (tmp_path / "version").write_text("7\n")
    with pytest.raises(StoreError, match=f"version 7, and this mirror knows {VERSION}.*--cache-dir"):
        CacheDirectory(tmp_path)
    assert not (tmp_path / "books").is_dir() or not (tmp_path / "books" / "cache.db").exists()
    (tmp_path / "version").write_text("")
    check_version(tmp_path)
    assert (tmp_path / "version").read_text() == f"{VERSION}\n"


def test_version_is_stamped_in_an_older_folder(tmp_path: Path) -> None:
    """A folder of version 0.1 has the same layout."""
    folder = CacheDirectory(tmp_path / "cache")
    digest, _ = put(folder, tmp_path, b"data")
    folder.close()
    (tmp_path / "cache" / "version").unlink()
    folder = CacheDirectory(tmp_path / "cache")
    assert folder.reader.has(digest)
    folder.close()


def test_recovery_recreates_removed_parts(tmp_path: Path) -> None:
    """The call that meets the loss recreates the part; an intact folder costs a look."""
    folder = CacheDirectory(tmp_path / "cache")
    assert not folder.recovery.recreate_removed()
    os.rename(tmp_path / "cache", tmp_path / "elsewhere")
    digest = Digest.of(b"small")
    folder.recovery.write(folder.writer.put_small_blob, digest, b"small")
    assert folder.reader.read(digest, 10) == b"small"
    assert not folder.recovery.recreate_removed()
    folder.close()


def test_recovery_recreates_a_corrupt_database(tmp_path: Path) -> None:
    """A mark says that the blobs need entries again."""
    folder = CacheDirectory(tmp_path / "cache")
    digest, _ = put(folder, tmp_path, b"data")
    folder.close()
    database = tmp_path / "cache" / "blobs" / "cache.db"
    database.write_bytes(b"no database" * 1000)
    folder = CacheDirectory(tmp_path / "cache")
    assert not folder.reader.has(digest)
    assert (tmp_path / "cache" / REBUILD).exists()
    assert folder.health.faults() == []
    folder.close()


def overwrite(folder: CacheDirectory, name: str) -> None:
    """Make a database no database, behind the connections that are open."""
    folder.recovery.drop_connections()
    (folder.path / name / "cache.db").write_bytes(b"no database" * 1000)


@pytest.mark.parametrize("name", ["books", "blobs"])
def test_recovery_recreates_a_corrupt_database_at_the_write_that_meets_it(tmp_path: Path, name: str) -> None:
    """No read has told of it before, and the write succeeds."""
    folder = CacheDirectory(tmp_path / "cache")
    overwrite(folder, name)
    if name == "books":
        folder.recovery.write(folder.writer.drop_tag, Repository("docker.io", "library/x"), Tag("t"))
    else:
        folder.recovery.write(folder.writer.put_small_blob, Digest.of(b"small"), b"small")
    assert os.listdir(tmp_path / "cache" / "quarantine")
    assert folder.health.faults() == []
    folder.close()


@pytest.mark.parametrize("name", ["books", "blobs"])
def test_recovery_recreates_a_corrupt_database_at_a_probe(tmp_path: Path, name: str) -> None:
    """While writing is down nothing is written, and what is served from memory reads nothing."""
    folder = CacheDirectory(tmp_path / "cache")
    overwrite(folder, name)
    folder.health.report_fault(Capability.WRITING, sqlite3.DatabaseError("file is not a database"))
    folder.recovery.probe()
    assert folder.health.faults() == []
    assert os.listdir(tmp_path / "cache" / "quarantine")
    folder.close()


def test_recovery_reports_what_it_cannot_repair(tmp_path: Path) -> None:
    """A file is where a folder should be."""
    folder = CacheDirectory(tmp_path / "cache")
    os.rename(tmp_path / "cache" / "partial", tmp_path / "elsewhere")
    (tmp_path / "cache" / "partial").write_text("a file")
    with pytest.raises(StoreError):
        folder.recovery.write(folder.writer.put_small_blob, Digest.of(b"small"), b"small")
    assert folder.health.is_down(Capability.WRITING)
    (tmp_path / "cache" / "partial").unlink()
    folder.recovery.probe()
    assert folder.health.faults() == []
    folder.close()


@pytest.mark.needs(root=True)
@pytest.mark.parametrize("found", [[], ["lost+found"]], ids=["empty", "new file system"])
def test_folder_of_another_user_is_refused_with_what_to_do(tmp_path: Path, found: list[str]) -> None:
    """A volume that belongs to root and that a group may write cannot be closed; one inside it can."""
    volume = tmp_path / "volume"
    for each in ("", *found):
        (volume / each).mkdir()
    volume.chmod(0o777)
    open_to_all(tmp_path)
    os.seteuid(65534)
    try:
        for _ in range(2):  # what the first start has made does not let the second one in
            with pytest.raises(
                PermissionError, match=r"user 0, and this is user 65534.*cache\.dir = .*volume/cache"
            ):
                CacheDirectory(volume)
        CacheDirectory(volume / "cache").close()
    finally:
        os.seteuid(0)
    assert (volume / "cache").stat().st_mode & 0o777 == 0o700
