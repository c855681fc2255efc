"""Sinks of an import, on disks that are full, and the files that a killed import leaves."""

import errno
import os
from pathlib import Path

import pytest

from mirror.bundle.errors import BundleError
from mirror.manage.carry.intake import Intake
from mirror.manage.carry.sinks import own_file, remove_leftovers
from mirror.oci.digest import Digest
from mirror.store.partial.partial import Partial
from tests.disks import fill_up, tmpfs
from tests.fakes.bundles import random_bytes
from tests.fakes.cached import age, open_folder, put_blob

MIB = 1024 * 1024
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")


@needs_root
@pytest.mark.parametrize("beside", [False, True], ids=["partial", "beside a fill"])
def test_full_disk_leaves_nothing(tmp_path: Path, beside: bool) -> None:
    """The error is the disk's, and no byte of the blob stays."""
    data = random_bytes(4 * MIB, 1)
    with tmpfs(tmp_path / "disk", 16 * MIB) as disk:
        folder = open_folder(disk / "cache")
        fill = Partial.lock(Digest.of(data), folder.partials) if beside else None
        sink = Intake(folder).sink(Digest.of(data), len(data))
        assert sink is not None
        fill_up(disk / "other", 2 * MIB)
        with pytest.raises(OSError, match="No space") as failure:
            sink.write(memoryview(data))
        sink.abort()
        assert failure.value.errno == errno.ENOSPC
        if fill is not None:
            fill.release()
        assert list(folder.partials.iterdir()) == []
        folder.close()


@needs_root
def test_full_disk_has_room_made_on_it(tmp_path: Path) -> None:
    """Blobs that are not used go for those that come in."""
    data = random_bytes(4 * MIB, 1)
    with tmpfs(tmp_path / "disk", 64 * MIB) as disk:
        folder = open_folder(disk / "cache")
        old = [put_blob(folder, random_bytes(4 * MIB, number)) for number in range(2, 8)]
        age(folder, *old)
        fill_up(disk / "other", MIB)
        sink = Intake(folder).sink(Digest.of(data), len(data))
        assert sink is not None
        sink.write(memoryview(data))
        sink.commit()
        assert folder.reader.has(Digest.of(data))
        assert not folder.reader.has(old[0])
        folder.close()


def test_own_files_are_locked(tmp_path: Path) -> None:
    """A second import does not write into the same file."""
    _, lock = own_file(Digest.of(b"x"), tmp_path)
    with pytest.raises(BundleError, match="another import"):
        own_file(Digest.of(b"x"), tmp_path)
    os.close(lock)


def test_leftovers_of_killed_imports_are_removed(tmp_path: Path) -> None:
    """Files that a running import has locked stay."""
    (tmp_path / "import-sha256-a").write_bytes(b"x")
    path, lock = own_file(Digest.of(b"x"), tmp_path)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    os.close(lock)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
