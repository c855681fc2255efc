"""Identity of a cache folder among the mirrors of a tier."""

import shutil
from pathlib import Path

import pytest

from mirror.transfer.shared.identity import NAME, folder_identity


def test_identity_of_a_folder_is_random_and_stays(tmp_path: Path) -> None:
    """Two folders of one machine, or of two machines with the same names, have not the same one."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    known = folder_identity(first)
    assert len(known) == 32
    assert folder_identity(first) == known
    other = folder_identity(second)
    assert other != known
    moved = first.rename(tmp_path / "c")
    assert folder_identity(moved) == known
    second.rename(first)
    assert folder_identity(first) == other


def test_identity_of_a_copied_folder_is_another_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The copy says so, once; the folder itself keeps its identity."""
    folder, copy = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    known = folder_identity(folder)
    shutil.copytree(folder, copy)
    other = folder_identity(copy)
    assert other != known
    assert (folder_identity(copy), folder_identity(folder)) == (other, known)
    assert capsys.readouterr().out.count("cache folder is a copy") == 1


def test_identity_of_an_earlier_version_is_kept(tmp_path: Path) -> None:
    """The file of an earlier version does not name the folder yet, and does so from now on."""
    (tmp_path / NAME).write_text("0" * 32 + "\n")
    assert folder_identity(tmp_path) == "0" * 32
    assert (tmp_path / NAME).read_text() == f"{'0' * 32} {tmp_path.stat().st_ino}\n"


def test_identity_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    """Text of another form names no objects; nor is a link followed."""
    for text in (b"", b"../../pins", b"0" * 100, b"\xff" * 32):
        (tmp_path / NAME).write_bytes(text)
        made = folder_identity(tmp_path)
        assert (tmp_path / NAME).read_text() == f"{made} {tmp_path.stat().st_ino}\n"
    (tmp_path / NAME).unlink()
    (tmp_path / "target").write_text("0" * 32 + "\n")
    (tmp_path / NAME).symlink_to(tmp_path / "target")
    assert folder_identity(tmp_path) != "0" * 32


def test_identity_of_a_folder_that_is_gone_is_its_place(tmp_path: Path) -> None:
    """The upkeep goes on: two such mirrors may share a name, as they did before."""
    nowhere = tmp_path / "gone"
    assert folder_identity(nowhere) == folder_identity(nowhere)
    assert folder_identity(nowhere) != folder_identity(tmp_path)
