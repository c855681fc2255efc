"""A hostile cache folder: rows, links and names in it lead no process to anything outside."""

import math
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs.entries import Origin
from mirror.store.blobs.fsck import Fsck, FsckCursor
from mirror.store.invalidation import open_shared
from mirror.store.metadata.blob_table import START
from mirror.store.orphans import files_without_entry
from mirror.util.durable import replace_file, try_allocate
from tests.fakes.cached import X, open_folder, put_blob, put_image
from tests.programs import without_coverage

NOBODY = 65534
PROGRAM = Path(__file__).parents[2]
SECRET = b"of another user"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that is no part of any cache."""
    path = tmp_path / "outside"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


@pytest.fixture
def shared(outside: Path) -> Iterator[Path]:
    """The cache folder of the user `nobody`, in a folder that every user can reach."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        folder = open_folder(Path(place, "cache"))
        put_image(folder, X, "1", [b"layer"])
        folder.close()
        give(Path(place, "cache"))
        yield Path(place, "cache")


def give(path: Path) -> None:
    for each in [path, *path.rglob("*")]:
        os.chown(each, NOBODY, NOBODY, follow_symlinks=False)


def point_all_to(database: Path, target: Path) -> None:
    """Make every row of a database name a file elsewhere."""
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE Cache SET filename = ?, access_time = 1, store_time = 1", (str(target),))
    connection.close()


def run(folder: Path, *arguments: str, program: Path = PROGRAM) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mirror", *arguments, "--config", "", "--cache-dir", str(folder)]
    return subprocess.run(
        command,
        cwd=program,
        env=without_coverage(),  # its files would be those of another user
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def untouched(path: Path) -> bool:
    status = path.stat()
    return path.read_bytes() == SECRET and (status.st_uid, status.st_mode & 0o777) == (os.geteuid(), 0o600)


NAMES = [
    "{outside}",
    "../../outside",
    "sha256/ab/../../../../outside",
    "sha256/ab/cd",
    "",
    "sha256/ab/00.00000000\n",
]


@pytest.mark.parametrize("name", NAMES)
def test_foreign_name_in_a_row_is_a_miss(tmp_path: Path, outside: Path, name: str) -> None:
    """The file is neither sent, moved nor unlinked, and the blob can be cached again."""
    folder = open_folder(tmp_path / "cache")
    digest = put_blob(folder, SECRET)
    point_all_to(tmp_path / "cache" / "blobs" / "cache.db", Path("x"))
    with sqlite3.connect(tmp_path / "cache" / "blobs" / "cache.db") as connection:
        connection.execute("UPDATE Cache SET filename = ?", (name.format(outside=outside),))
    connection.close()
    assert folder.blobs.open(digest) is None
    assert not folder.blobs.has(digest)
    put_blob(folder, SECRET)
    blob = folder.blobs.open(digest)
    assert blob is not None
    blob.file.close()
    folder.close()
    assert untouched(outside)


@pytest.mark.parametrize("way", ["remove", "evict", "quarantine"])
def test_foreign_name_in_a_row_removes_nothing(tmp_path: Path, outside: Path, way: str) -> None:
    """Removal, eviction and quarantine forget the entry and leave the file."""
    folder = open_folder(tmp_path / "cache")
    digest = put_blob(folder, SECRET)
    point_all_to(tmp_path / "cache" / "blobs" / "cache.db", outside)
    if way == "remove":
        folder.blobs.remove(digest)
    elif way == "evict":
        assert folder.blobs.evictions.evict(float("inf"), None, (), START).evicted == []
    else:
        folder.blobs.quarantine(digest)
    assert not folder.blobs.has(digest)
    folder.close()
    assert untouched(outside)


def test_foreign_name_in_the_index_is_not_read(tmp_path: Path, outside: Path) -> None:
    """The index keeps long values in files, too: their names have a grammar as well."""
    folder = open_folder(tmp_path / "cache")
    cache = folder.index.database.cache
    cache.set("key", "v" * 100_000)
    point_all_to(tmp_path / "cache" / "books" / "cache.db", outside)
    with sqlite3.connect(tmp_path / "cache" / "books" / "cache.db") as connection:
        connection.execute("UPDATE Cache SET mode = 3, value = NULL")
    connection.close()
    assert cache.get("key") is None
    cache.delete("key")
    folder.close()
    assert untouched(outside)


def test_link_in_place_of_a_blob_is_a_miss(tmp_path: Path, outside: Path) -> None:
    """The link goes to quarantine, and its target stays as it is."""
    folder = open_folder(tmp_path / "cache")
    digest = put_blob(folder, SECRET)
    row = folder.blobs.table.row(str(digest))
    assert row is not None
    (folder.blobs.folder / row.name).unlink()
    (folder.blobs.folder / row.name).symlink_to(outside)
    assert folder.blobs.open(digest) is None
    assert not folder.blobs.has(digest)
    folder.close()
    assert untouched(outside)


def test_link_in_place_of_the_quarantine_moves_nothing_out(tmp_path: Path, outside: Path) -> None:
    """A corrupt file stays in the cache folder, and the target of the link keeps its owner."""
    (tmp_path / "elsewhere").mkdir()
    folder = open_folder(tmp_path / "cache")
    digest = put_blob(folder, SECRET)
    (tmp_path / "cache" / "quarantine").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="quarantine"):
        folder.blobs.quarantine(digest)
    folder.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_created_files_follow_no_link(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is planted under the name of a temporary file is replaced; its target stays."""
    monkeypatch.setattr("threading.get_ident", lambda: 7)
    place = tmp_path / "place"
    place.mkdir()
    names = [f"pins.{os.getpid()}-7", f"small-probe-{os.getpid()}-7", f"verify.cursor.{os.getpid()}"]
    for name in names:
        (place / name).symlink_to(outside)
    replace_file(place / "pins", "new")
    try_allocate(place, 4096)
    FsckCursor().save(place / "verify.cursor")
    assert sorted(each.name for each in place.iterdir()) == ["pins", "verify.cursor"]
    assert (place / "pins").read_text() == "new"
    (place / "generation").symlink_to(tmp_path / "new")
    with pytest.raises(OSError, match="generation"):
        open_shared(place / "generation")
    assert not (tmp_path / "new").exists()
    assert untouched(outside)


def test_link_in_place_of_a_small_blob_is_not_written(tmp_path: Path, outside: Path) -> None:
    """Small blobs are written under a name that the process chooses; a link there is replaced."""
    folder = open_folder(tmp_path / "cache")
    digest = Digest.of(b"small")
    folder.writer._small_files._path(digest).symlink_to(outside)
    folder.writer._small_files.add({digest: b"small"}, Origin.PUBLIC)
    assert folder.blobs.read(digest, 100) == b"small"
    folder.close()
    assert untouched(outside)


def test_link_in_place_of_a_shard_is_no_part_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`gc` and `verify --repair` go through folders, not through links to folders elsewhere."""
    monkeypatch.setattr("mirror.store.blobs.fsck.GRACE_SECONDS", -1.0)
    folder = open_folder(tmp_path / "cache")
    put_blob(folder, b"blob")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    digest = Digest.of(SECRET)
    (elsewhere / f"{digest.encoded[2:]}.00000000").write_bytes(b"wrong")
    (folder.blobs.folder / "sha256" / digest.encoded[:2]).symlink_to(elsewhere)
    assert list(files_without_entry(folder.blobs, math.inf)) == []
    list(Fsck(folder.blobs.folder, folder.blobs, FsckCursor(), repair=True).steps())
    assert len(list(elsewhere.iterdir())) == 1
    folder.close()


COMMANDS = [
    ["ls"],
    ["du"],
    ["pin", "x:1"],
    ["pins"],
    ["unpin", "x:1"],
    ["gc"],
    ["verify", "--repair"],
    ["rm", "x:1", "--yes"],
]


@pytest.mark.needs(root=True)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands_of_root_become_the_owner(shared: Path, outside: Path, command: list[str]) -> None:
    """All that a command makes or changes is the owner's, and nothing that only root can reach is touched.

    The planted links lead to a folder of root, where the owner of the cache may do nothing.
    """
    roots = outside.parent / "roots"
    roots.mkdir(mode=0o700)
    (shared / "quarantine").symlink_to(roots)
    (shared / "verify.cursor").symlink_to(outside)
    (shared / "rebuild").symlink_to(roots / "new")
    point_all_to(shared / "blobs" / "cache.db", outside)
    run(shared, *command)
    assert untouched(outside)
    assert list(roots.iterdir()) == []
    assert {each.lstat().st_uid for each in shared.rglob("*") if not each.is_symlink()} == {NOBODY}


@pytest.mark.needs(root=True)
def test_commands_of_root_follow_no_link_to_a_database(shared: Path, tmp_path: Path) -> None:
    """Not even what SQLite opens: the database is a link to one of root."""
    other = open_folder(tmp_path / "other")
    put_image(other, X, "1", [b"layer"])
    other.close()
    (shared / "blobs" / "cache.db").unlink()
    (shared / "blobs" / "cache.db").symlink_to(tmp_path / "other" / "blobs" / "cache.db")
    tmp_path.chmod(0o700)
    before = (tmp_path / "other" / "blobs" / "cache.db").read_bytes()
    done = run(shared, "rm", "x:1", "--yes")
    assert done.returncode != 0
    assert (tmp_path / "other" / "blobs" / "cache.db").read_bytes() == before


@pytest.mark.needs(root=True)
@pytest.mark.slow
def test_commands_of_root_work_where_the_owner_cannot_read_the_program(shared: Path, tmp_path: Path) -> None:
    """All that is imported later is imported before root becomes the owner."""
    shutil.copytree(PROGRAM / "mirror", tmp_path / "program" / "mirror")
    (tmp_path / "program").chmod(0o700)
    for command in COMMANDS:
        done = run(shared, *command, program=tmp_path / "program")
        assert done.returncode == 0, done.stderr


@pytest.mark.needs(root=True)
def test_serve_as_root_refuses_the_folder_of_another_user(shared: Path) -> None:
    """The message names the user and says what to do."""
    done = run(shared, "serve", "--offline")
    assert done.returncode == 1
    assert f"{shared} belongs to nobody: run the mirror as that user" in done.stderr


# The interpreter may be one that only root can read: imports come first.
AS_A_THIRD_USER = """
import os, pathlib, sys
import mirror.cli.program
from mirror.cli.common import become_owner
os.setresuid(12345, 12345, 12345)
become_owner(pathlib.Path(sys.argv[1]), 1)
"""


@pytest.mark.needs(root=True)
def test_commands_refuse_the_folder_of_a_third_user(shared: Path) -> None:
    """A user who can write a folder that is neither root's nor the user's own is told to use sudo."""
    os.chmod(shared, 0o777)
    done = subprocess.run(
        [sys.executable, "-c", AS_A_THIRD_USER, str(shared)],
        cwd=PROGRAM,
        env=without_coverage(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"{shared} belongs to nobody: run this with sudo, or as that user" in done.stderr


@pytest.mark.needs(root=True)
def test_commands_of_root_say_if_the_owner_cannot_reach_the_folder(tmp_path: Path) -> None:
    """Below a folder that only root may enter."""
    folder = open_folder(tmp_path / "cache")
    folder.close()
    tmp_path.chmod(0o700)
    give(tmp_path / "cache")
    done = run(tmp_path / "cache", "ls")
    assert done.returncode == 1
    assert "nobody, who cannot reach it: open the folders above it" in done.stderr
    assert "Traceback" not in done.stderr
