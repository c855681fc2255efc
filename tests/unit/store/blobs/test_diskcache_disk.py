"""diskcache without pickle: files come in by rename, values are text, nothing is executed."""

import pickle
import sqlite3
from pathlib import Path
from typing import Any

import diskcache
import pytest
from diskcache.core import MODE_PICKLE

from mirror.oci.digest import Digest
from mirror.store.blobs.diskcache_disk import AdoptingDisk, VerifiedFile
from mirror.store.metadata.database import PlainDisk

TRAP: list[str] = []


class Evil:
    """A value that leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return TRAP.append, ("executed",)


def opened(folder: Path, disk: type[diskcache.Disk]) -> Any:
    return diskcache.Cache(str(folder), disk=disk, eviction_policy="none", cull_limit=0)


def plant(folder: Path, key: object, raw: int, mode: int, filename: str | None, value: object) -> None:
    """Write a row that an intruder with write access to the folder could make."""
    with sqlite3.connect(folder / "cache.db") as database:
        database.execute(
            "INSERT INTO Cache (key, raw, store_time, access_time, mode, filename, value)"
            " VALUES (?, ?, 0, 0, ?, ?, ?)",
            (key, raw, mode, filename, value),
        )
    database.close()


@pytest.mark.parametrize("disk", [PlainDisk, AdoptingDisk])
def test_disk_never_unpickles(tmp_path: Path, disk: type[diskcache.Disk]) -> None:
    """A planted pickle is opened neither as a value in a row or a file, nor as a key (CVE-2025-69872)."""
    cache = opened(tmp_path, disk)
    bomb = pickle.dumps(Evil())
    (tmp_path / "bomb").write_bytes(bomb)
    plant(tmp_path, "inline", 1, MODE_PICKLE, None, bomb)
    plant(tmp_path, "file", 1, MODE_PICKLE, "bomb", None)
    plant(tmp_path, bomb, 0, 1, None, "x")
    assert cache.get("inline") is None
    assert cache.get("file") is None
    with pytest.raises(OSError, match="not text"):
        list(cache)
    cache.close()
    assert TRAP == []


def test_disk_takes_text_only(tmp_path: Path) -> None:
    """Keys and values that diskcache would pickle are refused before they are written."""
    cache = opened(tmp_path, PlainDisk)
    for key, value in ((("tuple",), "x"), (1, "x"), ("key", {}), ("key", b"x"), ("key", 1)):
        with pytest.raises(TypeError):
            cache.set(key, value)
    cache.set("key", "value")
    assert cache.get("key") == "value"
    cache.close()


def test_disk_adopts_verified_files_only(tmp_path: Path) -> None:
    """A row that is no adopted file is not handed out as one."""
    cache = opened(tmp_path, AdoptingDisk)
    with pytest.raises(TypeError, match="only verified files"):
        cache.set("key", "text")
    plant(tmp_path, "text", 1, 1, None, "text")
    assert cache.get("text") is None
    cache.close()


def test_disk_adopts_by_rename_to_a_unique_name(tmp_path: Path) -> None:
    """A second adoption of one digest leaves the entry's file and no other, and nothing is copied."""
    cache = opened(tmp_path / "cache", AdoptingDisk)
    digest = Digest.of(b"data")
    inodes = []
    for number in range(2):
        path = tmp_path / f"file{number}"
        path.write_bytes(b"data")
        inodes.append(path.stat().st_ino)
        cache.add(str(digest), VerifiedFile(digest, path, 4))
        assert not path.exists()
    kept: Path = cache.get(str(digest))
    assert kept.stat().st_ino == inodes[0]
    assert kept.read_bytes() == b"data"
    assert [each for each in (tmp_path / "cache" / "sha256").rglob("*") if each.is_file()] == [kept]
    cache.close()
