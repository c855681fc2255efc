"""Files that are whole after a crash, and the probe for room."""

import os
from pathlib import Path

import pytest

from mirror.util.durable import WriteBack, create_file, replace_file, reserve, try_allocate


def test_replace_file_leaves_one_private_file(tmp_path: Path) -> None:
    """The text replaces the old one, only the owner may read it, and no temporary file stays."""
    path = tmp_path / "pins"
    path.write_text("old")
    replace_file(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["pins"]


def test_replace_file_that_fails_keeps_the_old_text(tmp_path: Path) -> None:
    """A target that cannot be replaced is an OSError, and the temporary file is removed."""
    (tmp_path / "pins").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "pins", "new")
    assert os.listdir(tmp_path) == ["pins"]


def test_try_room_leaves_nothing(tmp_path: Path) -> None:
    """The probe succeeds where there is room, fails where there is no folder, and leaves no file."""
    try_allocate(tmp_path, 4096)
    with pytest.raises(FileNotFoundError):
        try_allocate(tmp_path / "gone", 4096)
    assert os.listdir(tmp_path) == []


def test_reserve_takes_room_and_changes_nothing(tmp_path: Path) -> None:
    """A file keeps size and content, has room for more, and is not given more room at the next call."""
    path = tmp_path / "log"
    path.write_bytes(b"written")
    for _ in range(2):
        reserve(path, 1024 * 1024)
        status = path.stat()
        assert (status.st_size, path.read_bytes()) == (7, b"written")
        assert 1024 * 1024 <= 512 * status.st_blocks <= 1024 * 1024 + 8192
    with pytest.raises(FileNotFoundError):
        reserve(tmp_path / "gone", 4096)
    assert os.listdir(tmp_path) == ["log"]


def test_write_back_begins_in_time(tmp_path: Path) -> None:
    """All that was written stays readable, from whatever offset on it is noted."""
    path, piece = tmp_path / "file", bytes(range(256)) * 4096
    with path.open("wb", buffering=0) as file:
        write_back = WriteBack(file.fileno())
        for _ in range(20):
            write_back.note(file.write(piece))
    assert path.read_bytes() == piece * 20


def test_create_file_replaces_what_is_in_its_place(tmp_path: Path) -> None:
    """A link there leads nowhere, and what it names stays as it is."""
    (tmp_path / "target").write_text("kept")
    path = tmp_path / "new"
    path.symlink_to("target")
    with create_file(path, 0o400) as file:
        file.write(b"mine")
    assert (path.read_text(), (tmp_path / "target").read_text()) == ("mine", "kept")
    assert (path.is_symlink(), path.stat().st_mode & 0o777) == (False, 0o400)
