"""What may fail is tried once more where that helps, and then left alone."""

import errno
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror.store.cache_dir import Folder
from mirror.store.errors import Lost, NoRoom, ShuttingDown, StoreError
from mirror.store.executor import DiskThreads
from mirror.store.health import Side
from mirror.store.retrying import Attempts


class Disk:
    """Fails as often as it is told to."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked: list[int] = []  # how much room was wanted

    def work(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def make_room(self, need: int) -> None:
        self.asked.append(need)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
async def threads() -> AsyncIterator[DiskThreads]:
    threads = DiskThreads(1)
    yield threads
    await threads.close(bool)


async def attempts(threads: DiskThreads, tmp_path: Path, disk: Disk) -> Attempts:
    def opened() -> Folder:
        with closing(Folder(tmp_path / "cache")) as folder:
            return folder

    folder = await threads.run(opened)
    return Attempts(threads, folder.mending, folder.troubles, disk.make_room)


async def test_a_full_disk_is_tried_again_with_more_room(threads: DiskThreads, tmp_path: Path) -> None:
    """Once; for a blob that is too large, with as much as it takes."""
    disk = Disk(FULL, NoRoom("large", 77))
    tried = await attempts(threads, tmp_path, disk)
    with pytest.raises(NoRoom):
        await tried.write(disk.work)
    assert disk.asked == [0]
    disk.errors = [NoRoom("large", 77)]
    assert (await tried.write(disk.work), disk.asked) == ("done", [0, 77])


async def test_other_errors_are_not(threads: DiskThreads, tmp_path: Path) -> None:
    """A note that cannot be taken is not tried again until the disk is well."""
    disk = Disk(OSError(errno.EROFS, "read-only"))
    tried = await attempts(threads, tmp_path, disk)
    assert not await tried.note(disk.work)
    assert (disk.asked, tried.keeps) == ([], False)
    assert not await tried.note(disk.work)
    tried._troubles.well(Side.WRITING)
    assert await tried.note(disk.work)


async def test_what_cannot_be_read_is_not_there(threads: DiskThreads, tmp_path: Path) -> None:
    """And is looked for upstream."""
    disk = Disk(OSError(errno.EIO, "io"))
    tried = await attempts(threads, tmp_path, disk)
    assert await tried.read("nothing", disk.work) == "nothing"
    assert tried.keeps


async def test_what_is_no_trouble_with_the_disk(threads: DiskThreads, tmp_path: Path) -> None:
    """The mirror stops, or another process gave up."""
    tried = await attempts(threads, tmp_path, Disk())
    for error in (ShuttingDown("bye"), Lost("gone")):
        tried.failed(error)
    assert tried.keeps
    tried.failed(StoreError("really"))
    assert not tried.keeps
