"""Read-ahead: bytes are handed out once they are in the page cache; bytes that are there cost no thread."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import BinaryIO

import pytest

from mirror.store import readahead
from mirror.store.blobs.page_cache import resident
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.readahead import READ_BYTES, STRETCH_BYTES, ReadAhead
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
    """Return a file that is cold at the first look, although that look makes Linux begin to read it."""

    def first_look(file: BinaryIO, offset: int, stop: int) -> int:
        monkeypatch.setattr(readahead, "resident", resident)
        return offset

    monkeypatch.setattr(readahead, "resident", first_look)
    return cold


@pytest.fixture
def untold() -> Iterator[BinaryIO]:
    """Return a file whose file system does not tell whether it is in the page cache."""
    with os.fdopen(os.memfd_create("blob"), "w+b", buffering=0) as file:
        file.truncate(SIZE)
        if resident(file, 0, SIZE):
            pytest.skip("here even a file in memory tells")
        yield file


@pytest.fixture
def gate() -> Iterator[Event]:
    """Hold the one thread until the test releases it, or fails."""
    event = Event()
    yield event
    event.set()


def used(executor: DiskExecutor) -> bool:
    """Return whether a thread was ever needed: the first one is started by the first job."""
    return bool(executor.executor._threads)


async def walk(ahead: ReadAhead) -> list[tuple[int, int]]:
    """Return all stretches to the end, as a sender takes them; each must be in the page cache then."""
    taken, offset = [], 0
    while offset < ahead.stop:
        await ahead.wait(offset)
        reached = ahead.ready_until(offset)
        assert offset < reached
        taken.append((offset, reached))
        offset = reached
    return taken


async def test_readahead_of_a_warm_file_needs_no_thread(executor: DiskExecutor, warm: BinaryIO) -> None:
    """A warm file is taken in whole stretches, at once."""
    if resident(warm, 0, SIZE) != SIZE:
        pytest.skip("this file system does not tell what is in the page cache")
    stretches = [(0, STRETCH_BYTES), (STRETCH_BYTES, 2 * STRETCH_BYTES), (2 * STRETCH_BYTES, SIZE)]
    assert await walk(ReadAhead(executor, warm, SIZE)) == stretches
    assert not used(executor)


async def test_readahead_reads_a_cold_file_first(executor: DiskExecutor, unread: BinaryIO) -> None:
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


async def test_readahead_uses_a_thread_where_residency_is_unknown(
    executor: DiskExecutor, untold: BinaryIO
) -> None:
    """Every byte is read by a thread: the loop might have to wait for any of them."""
    assert await walk(ReadAhead(executor, untold, SIZE)) == [
        (start, min(start + READ_BYTES, SIZE)) for start in range(0, SIZE, READ_BYTES)
    ]
    assert used(executor)


async def test_readahead_reads_the_next_stretch_while_sending(
    executor: DiskExecutor, untold: BinaryIO, gate: Event
) -> None:
    """The next stretch is requested once there are bytes to send, and handed out once it is here."""
    ahead = ReadAhead(executor, untold, SIZE)
    await ahead.wait(0)
    executor.executor.submit(gate.wait)
    assert ahead.ready_until(0) == READ_BYTES
    assert ahead.ready_until(READ_BYTES) == READ_BYTES
    gate.set()
    await ahead.wait(READ_BYTES)
    assert ahead.ready_until(READ_BYTES) == 2 * READ_BYTES


async def test_readahead_raises_disk_errors(executor: DiskExecutor, warm: BinaryIO) -> None:
    """The waiting reader gets a StoreError; the descriptor here refuses every read."""
    ahead = ReadAhead(executor, unreadable(Path(warm.name)), SIZE)
    with pytest.raises(StoreError, match="read through"):
        await ahead.wait(0)
    with pytest.raises(StoreError, match="read through"):
        ahead.ready_until(0)
    ahead.file.close()


async def test_readahead_survives_a_reader_that_leaves(
    executor: DiskExecutor, unread: BinaryIO, gate: Event
) -> None:
    """A read that was started for the reader has a descriptor of its own, and closes it."""
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
    """Return how many descriptors of this process are of that file."""
    links = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return sum(os.path.realpath(each) == os.path.realpath(name) for each in links)


def unreadable(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY), "wb", buffering=0)
