"""Writes: what must be durable, and the order of a removal."""

import os
import sqlite3
from pathlib import Path

import pytest

from mirror.oci.reference import Repository
from mirror.store.blobs.entries import SMALL_BYTES
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.cached import open_folder, put_image
from tests.unit.store.test_eviction import put

X = Repository("docker.io", "library/x")


def test_adopt_syncs_large_blobs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large blob is synced before its name is known; a small one is verified at each read instead."""
    folder, synced = open_folder(tmp_path / "cache"), list[int]()
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    put(folder, tmp_path, bytes(SMALL_BYTES))
    assert synced == []
    put(folder, tmp_path, bytes(SMALL_BYTES + 1))
    assert synced == [SMALL_BYTES + 1]
    folder.close()


def fail_at(folder: CacheDirectory, prefix: str) -> None:
    """Let the index's database refuse to remove rows whose keys begin with `prefix`."""
    folder.index.database.query(
        "CREATE TRIGGER refuse BEFORE DELETE ON Cache WHEN OLD.key LIKE"
        f" '{prefix}%' BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )


def test_remove_images_drops_links_before_blobs(tmp_path: Path) -> None:
    """Tags, links, then blobs; all processes learn of it."""
    folder = open_folder(tmp_path / "cache")
    image = put_image(folder, X, "1", [b"a"])
    before = (folder.epoch.removals(), folder.epoch.pin_changes())
    folder.writer.remove_images(X, ["1"], image, image)
    assert not any(folder.reader.has(each) or folder.reader.link(X, each) for each in image)
    assert folder.index.repositories("", "", 1) == []
    assert folder.epoch.removals() != before[0]
    assert folder.epoch.pin_changes() != before[1]
    folder.close()


@pytest.mark.parametrize(("prefix", "tags"), [("link:", ["1"]), ("repository:", [])])
def test_remove_images_tells_of_a_removal_that_failed(tmp_path: Path, prefix: str, tags: list[str]) -> None:
    """No process serves what was removed before the error; the blobs stay, so that each link has its file."""
    folder = open_folder(tmp_path / "cache")
    image = put_image(folder, X, "1", [b"a"])
    fail_at(folder, prefix)
    before = (folder.epoch.removals(), folder.epoch.pin_changes())
    with pytest.raises(sqlite3.IntegrityError, match="refused"):
        folder.writer.remove_images(X, ["1"], image, image)
    assert folder.index.tags(X, "", 9) == tags
    assert folder.epoch.removals() != before[0]
    assert folder.epoch.pin_changes() != before[1]
    assert all(folder.reader.has(each) for each in image)
    folder.close()
