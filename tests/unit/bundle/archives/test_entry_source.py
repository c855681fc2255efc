"""Entries of folders and of tars."""

import os
from pathlib import Path

import pytest

from mirror.bundle.archives.entry_source import DEEPEST, FolderEntries
from mirror.bundle.archives.layout_reader import read_all
from mirror.bundle.archives.limits import Limits
from mirror.bundle.errors import BundleError, EntryRefused


def names(folder: Path, limits: Limits | None = None) -> list[str]:
    return [each.name for each in FolderEntries(folder, limits or Limits())]


def test_folder_is_read_with_documents_first(tmp_path: Path) -> None:
    """Files of the folder itself, then those of its folders, by name."""
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "blobs" / "sha256" / "a").write_bytes(b"content")
    (tmp_path / "index.json").write_bytes(b"{}")
    assert names(tmp_path) == ["index.json", "blobs/sha256/a"]
    (*_, last) = ((each.name, each.size, read_all(each)) for each in FolderEntries(tmp_path, Limits()))
    assert last == ("blobs/sha256/a", 7, b"content")


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "pipe"])
def test_folder_with_something_else_is_refused(tmp_path: Path, kind: str) -> None:
    """Nothing is followed, and nothing waits."""
    target = tmp_path / "outside"
    target.mkdir()
    (target / "file").write_bytes(b"secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    if kind == "pipe":
        os.mkfifo(folder / "x")
    else:
        (folder / "x").symlink_to(target / "file" if kind == "link to a file" else target)
    with pytest.raises(EntryRefused, match="x: neither a file nor a folder"):
        names(folder)


def test_folder_of_many_files_or_levels_is_refused(tmp_path: Path) -> None:
    """Both are limited."""
    for number in range(4):
        (tmp_path / f"{number}").touch()
    assert len(names(tmp_path, Limits(entries=4))) == 4
    with pytest.raises(EntryRefused, match="more than 3"):
        names(tmp_path, Limits(entries=3))
    tmp_path.joinpath(*["d"] * (DEEPEST + 1)).mkdir(parents=True)
    with pytest.raises(EntryRefused, match="nested"):
        names(tmp_path)


def test_folder_that_is_none_is_named(tmp_path: Path) -> None:
    """The error says what failed."""
    with pytest.raises(BundleError, match="gone: the folder cannot be read"):
        names(tmp_path / "gone")
