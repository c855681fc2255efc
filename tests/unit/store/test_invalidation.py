"""Epochs: how other processes learn that something has changed."""

import os
import struct
from pathlib import Path

from mirror.store.invalidation import Epoch, open_shared


def test_epoch_change_is_seen_by_all_processes(tmp_path: Path) -> None:
    """A change of one kind leaves the other number as it is."""
    one, other = Epoch(tmp_path / "generation"), Epoch(tmp_path / "generation")
    removed, pinned = other.removals(), other.pin_changes()
    one.note_removal()
    assert (other.removals() == one.removals() != removed, other.pin_changes() == pinned) == (True, True)
    one.note_pin_change()
    assert other.pin_changes() == one.pin_changes() != pinned
    allowed, removed = other.access_changes(), other.removals()
    one.note_access_change()
    assert other.access_changes() == one.access_changes() != allowed
    assert other.removals() == removed


def test_epoch_takes_up_the_file_of_an_earlier_version(tmp_path: Path) -> None:
    """The two numbers that the file has stay; the third one is shared like them."""
    (tmp_path / "generation").write_bytes(struct.pack("=QQ", 7, 8))
    one, other = Epoch(tmp_path / "generation"), Epoch(tmp_path / "generation")
    one.note_access_change()
    assert (other.removals(), other.pin_changes(), other.access_changes()) == (7, 8, one.access_changes())


def test_epoch_outlives_the_process(tmp_path: Path) -> None:
    """A number that was drawn stays."""
    one = Epoch(tmp_path / "generation")
    one.note_removal()
    assert Epoch(tmp_path / "generation").removals() == one.removals()
    assert (tmp_path / "generation").stat().st_size == 32


def test_epoch_file_is_private_to_the_folders_owner(tmp_path: Path) -> None:
    """The file belongs to the owner of the folder, whichever process created it."""
    if os.geteuid() == 0:
        os.chown(tmp_path, 1234, 1234)
    os.close(open_shared(tmp_path / "shared"))
    status = (tmp_path / "shared").stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o600, tmp_path.stat().st_uid)


def test_epoch_is_constant_after_close(tmp_path: Path) -> None:
    """A late reader gets the last numbers, and no error."""
    one, other = Epoch(tmp_path / "generation"), Epoch(tmp_path / "generation")
    before = one.removals()
    one.close()
    one.close()
    other.note_removal()
    assert one.removals() == before


def test_epoch_of_pushes_is_shared_and_apart(tmp_path: Path) -> None:
    """A moved tag of a hosted repository drops nothing else that is remembered."""
    one, other = Epoch(tmp_path / "generation"), Epoch(tmp_path / "generation")
    before = other.pushes(), other.removals(), other.access_changes(), other.pin_changes()
    one.note_push()
    assert other.pushes() == one.pushes() != before[0]
    assert (other.removals(), other.access_changes(), other.pin_changes()) == before[1:]
