"""Read-ahead: nothing is handed out before it is in the page cache, and what is there costs no thread."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import BinaryIO

import pytest

from mirror.store import readahead
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.readahead import READ_BYTES, STRETCH_BYTES, ReadAhead, resident
from tests.page_cache import drop, is_resident

SIZE = 2 * STRETCH_BYTES + READ_BYTES + 5000


@pytest.fixture
def executor() -> Iterator[DiskExecutor]:
    pool = DiskExecutor(1)
    yield pool
    pool.executor.shutdown()


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[BinaryIO]:
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(SIZE))
    with path.open("rb") as file:
        yield file


@pytest.fixture
def cold(warm: BinaryIO) -> BinaryIO:
    drop(Path(warm.name))
    return warm


@pytest.fixture
def unread(cold: BinaryIO, monkeypatch: pytest.MonkeyPatch) -> BinaryIO:
    """A cold file that counts as cold at the first look, though that look makes Linux begin to read it."""

    def first_look(file: BinaryIO, offset: int, stop: int) -> int:
        monkeypatch.setattr(readahead, "resident", resident)
        return offset

    monkeypatch.setattr(readahead, "resident", first_look)
    return cold


@pytest.fixture
def untold() -> Iterator[BinaryIO]:
    """A file of which nobody can say whether it is in the page cache."""
    with os.fdopen(os.memfd_create("blob"), "w+b", buffering=0) as file:
        file.truncate(SIZE)
        if resident(file, 0, SIZE):
            pytest.skip("here even a file in memory tells")
        yield file


@pytest.fixture
def gate() -> Iterator[Event]:
    """Holds the one thread, and lets it go when the test has failed too."""
    event = Event()
    yield event
    event.set()


def used(executor: DiskExecutor) -> bool:
    """Whether a thread was ever needed: the first is started by the first work."""
    return bool(executor.executor._threads)


async def walk(ahead: ReadAhead) -> list[tuple[int, int]]:
    """All stretches to the end, as a sender takes them; each must be there when it is handed out."""
    taken, offset = [], 0
    while offset < ahead.stop:
        await ahead.wait(offset)
        reached = ahead.ready_until(offset)
        assert offset < reached
        taken.append((offset, reached))
        offset = reached
    return taken


async def test_what_is_there_costs_no_thread(executor: DiskExecutor, warm: BinaryIO) -> None:
    """A warm file is taken in whole stretches, at once."""
    if resident(warm, 0, SIZE) != SIZE:
        pytest.skip("this file system does not tell what is in the page cache")
    stretches = [(0, STRETCH_BYTES), (STRETCH_BYTES, 2 * STRETCH_BYTES), (2 * STRETCH_BYTES, SIZE)]
    assert await walk(ReadAhead(executor, warm, SIZE)) == stretches
    assert not used(executor)


async def test_what_is_not_there_is_read_first(executor: DiskExecutor, unread: BinaryIO) -> None:
    """No stretch is handed out before every page of it is there."""
    ahead, offset = ReadAhead(executor, unread, SIZE), 0
    assert ahead.ready_until(0) == 0
    while offset < SIZE:
        await ahead.wait(offset)
        reached = ahead.ready_until(offset)
        assert reached > offset
        assert is_resident(unread.fileno(), offset, reached)
        offset = reached
    assert used(executor)


async def test_a_file_system_that_does_not_tell(executor: DiskExecutor, untold: BinaryIO) -> None:
    """Its bytes come through a thread: nobody knows whether they would have to be waited for."""
    assert await walk(ReadAhead(executor, untold, SIZE)) == [
        (start, min(start + READ_BYTES, SIZE)) for start in range(0, SIZE, READ_BYTES)
    ]
    assert used(executor)


async def test_the_next_is_read_while_this_is_sent(
    executor: DiskExecutor, untold: BinaryIO, gate: Event
) -> None:
    """It is asked for as soon as there is something to send; until it is here it is not handed out."""
    ahead = ReadAhead(executor, untold, SIZE)
    await ahead.wait(0)
    executor.executor.submit(gate.wait)
    assert ahead.ready_until(0) == READ_BYTES
    assert ahead.ready_until(READ_BYTES) == READ_BYTES
    gate.set()
    await ahead.wait(READ_BYTES)
    assert ahead.ready_until(READ_BYTES) == 2 * READ_BYTES


async def test_a_disk_that_fails_is_told(executor: DiskExecutor, warm: BinaryIO) -> None:
    """To whoever waits, as a StoreError; the descriptor here refuses every read."""
    ahead = ReadAhead(executor, unreadable(Path(warm.name)), SIZE)
    with pytest.raises(StoreError, match="read through"):
        await ahead.wait(0)
    with pytest.raises(StoreError, match="read through"):
        ahead.ready_until(0)
    ahead.file.close()


async def test_a_reader_that_leaves_takes_its_file_along(
    executor: DiskExecutor, unread: BinaryIO, gate: Event
) -> None:
    """A read that was begun for it has a descriptor of its own, and gives it back."""
    executor.executor.submit(gate.wait)
    before = await asyncio.to_thread(opened, unread.name)
    file = await asyncio.to_thread(open, unread.name, "rb")
    assert ReadAhead(executor, file, SIZE).ready_until(0) == 0
    file.close()
    gate.set()
    await executor.run(int)
    assert await asyncio.to_thread(opened, unread.name) == before
    assert is_resident(unread.fileno(), 0, READ_BYTES)


def opened(name: str) -> int:
    """How many descriptors of this process are of that file."""
    links = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return sum(os.path.realpath(each) == os.path.realpath(name) for each in links)


def unreadable(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY), "wb", buffering=0)
