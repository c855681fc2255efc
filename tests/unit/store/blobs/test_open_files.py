"""Files that are kept open: readers of their own, a mark while they read, and no more files than allowed."""

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from mirror.store.blobs.entries import OpenBlob, Origin
from mirror.store.blobs.open_files import LONGEST_LIFE_SECONDS, OpenFiles


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "blob"
    file.write_bytes(b"content")
    return file


def keep(files: OpenFiles[str, str], key: str, path: Path) -> None:
    with path.open("rb") as file:
        files.keep(key, OpenBlob(file, 7, Origin.PUBLIC), "link")


def is_read(path: Path) -> bool:
    """Return whether an eviction would leave the file alone."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def opened(files: OpenFiles[str, str], key: str) -> OpenBlob:
    found = files.open(key)
    assert found is not None
    blob, link = found
    assert link == "link"
    return blob


async def descriptors() -> int:
    """Return the number of open descriptors, with the one of the look itself."""
    return len(await asyncio.to_thread(os.listdir, "/proc/self/fd"))


async def test_open_files_give_each_reader_a_descriptor(path: Path) -> None:
    """A reader that closes its file leaves those of others open, also once the file is forgotten."""
    files = OpenFiles[str, str]()
    keep(files, "a", path)
    first, second = opened(files, "a"), opened(files, "a")
    assert (first.size, first.origin) == (7, Origin.PUBLIC)
    first.file.close()
    files.clear()
    assert os.pread(second.file.fileno(), 7, 0) == b"content"
    second.file.close()
    assert files.open("a") is None


async def test_open_files_mark_a_file_only_while_it_is_read(path: Path) -> None:
    """A file that is merely kept open can be evicted; one that is read cannot, until the last reader ends."""
    files = OpenFiles[str, str]()
    keep(files, "a", path)
    assert not is_read(path)
    first, second = opened(files, "a"), opened(files, "a")
    first.file.close()
    first.file.close()
    assert is_read(path)
    second.file.close()
    assert not is_read(path)
    third = opened(files, "a")
    files.clear()
    assert is_read(path)
    third.file.close()
    assert not is_read(path)


async def test_open_files_leave_a_file_that_is_being_evicted(path: Path) -> None:
    """The disk is asked then."""
    files = OpenFiles[str, str]()
    keep(files, "a", path)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert files.open("a") is None
    assert len(files) == 0


async def test_open_files_expire(path: Path) -> None:
    """A file is closed after a while, asked for or not."""
    clock = Clock()
    files = OpenFiles[str, str](clock=clock)
    keep(files, "a", path)
    keep(files, "b", path)
    clock.now = LONGEST_LIFE_SECONDS - 1
    opened(files, "a").file.close()
    clock.now = LONGEST_LIFE_SECONDS
    assert files.open("a") is None
    assert len(files) == 1
    files._sweep()
    assert len(files) == 0


async def test_open_files_end_with_a_removal(path: Path) -> None:
    """A removed file takes space as long as it is open, so all are closed soon."""
    epoch = [0]
    files = OpenFiles[str, str](removal_epoch=lambda: epoch[0])
    keep(files, "a", path)
    files._sweep()
    assert len(files) == 1
    epoch[0] = 1
    files._sweep()
    assert len(files) == 0


async def test_open_files_are_bounded(path: Path) -> None:
    """The one used least recently makes room; with no room nothing is kept."""
    files = OpenFiles[str, str](2)
    before = await descriptors()
    keep(files, "a", path)
    keep(files, "b", path)
    opened(files, "a").file.close()
    keep(files, "c", path)
    assert files.open("b") is None
    opened(files, "a").file.close()
    assert await descriptors() == before + 2
    files.clear()
    assert await descriptors() == before
    none = OpenFiles[str, str](0)
    keep(none, "a", path)
    assert none.open("a") is None
