"""The growing file: how far readers may read, and when."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.partial.growing import HOLDBACK_BYTES, GrowingFile
from mirror.store.partial.partial import Partial

CHUNK = 64 * 1024
LARGE = os.urandom(HOLDBACK_BYTES + 3 * CHUNK)

Grow = Callable[[bytes], Awaitable[tuple[GrowingFile, Partial]]]


@pytest.fixture
async def open_growing(tmp_path: Path) -> AsyncIterator[Grow]:
    """Return a function that makes growing files of content that is still to be written."""
    executor = DiskExecutor(2)
    partials: list[Partial] = []

    async def make(content: bytes) -> tuple[GrowingFile, Partial]:
        partial = await executor.run(Partial.lock, Digest.of(content), tmp_path)
        assert partial is not None
        partials.append(partial)
        chunks = await executor.run(partial.allocate, len(content), CHUNK)
        return GrowingFile(partial, chunks, executor), partial

    yield make
    for partial in partials:
        await executor.run(partial.release)
    await executor.close(lambda: None)


async def write(growing: GrowingFile, content: bytes, start: int, stop: int) -> None:
    await growing.write(start, [content[start:stop]])


@pytest.mark.parametrize(
    ("size", "written", "readable"),
    [
        (1, 1, 0),
        (HOLDBACK_BYTES, HOLDBACK_BYTES, 0),
        (HOLDBACK_BYTES + 1, HOLDBACK_BYTES + 1, HOLDBACK_BYTES),
        (HOLDBACK_BYTES + CHUNK, HOLDBACK_BYTES + CHUNK, HOLDBACK_BYTES),
        (HOLDBACK_BYTES + CHUNK, HOLDBACK_BYTES, HOLDBACK_BYTES),
        (HOLDBACK_BYTES + CHUNK, 100, 100),
        (HOLDBACK_BYTES + 2 * CHUNK, HOLDBACK_BYTES + CHUNK + 5, HOLDBACK_BYTES + CHUNK),
    ],
)
async def test_growing_holdback(open_growing: Grow, size: int, written: int, readable: int) -> None:
    """No byte of up to 4 MiB, else all but the last chunk, until the whole blob is verified (invariant 4)."""
    content = os.urandom(size)
    growing, _ = await open_growing(content)
    await write(growing, content, 0, written)
    assert growing.readable() == readable


async def test_growing_releases_verified_content(open_growing: Grow) -> None:
    """Content is hashed as it comes, and then readable to its end."""
    growing, partial = await open_growing(LARGE)
    verifying = asyncio.ensure_future(growing.hash_contiguous())
    await write(growing, LARGE, 0, len(LARGE))
    await verifying
    verified = growing.complete()
    assert verified is not None
    assert (verified.size, verified.path) == (len(LARGE), partial.data_path)
    assert await growing.wait_readable(len(LARGE) - 1) == len(LARGE)
    reader = growing.open_reader()
    assert reader is not None
    with reader:
        assert os.pread(reader.fileno(), len(LARGE), 0) == LARGE


async def test_growing_never_releases_wrong_content(open_growing: Grow) -> None:
    """One wrong byte is enough; an incomplete blob is not verified either."""
    growing, _ = await open_growing(LARGE)
    assert growing.complete() is None
    verifying = asyncio.ensure_future(growing.hash_contiguous())
    await write(growing, LARGE[:-1] + bytes([LARGE[-1] ^ 1]), 0, len(LARGE))
    await verifying
    assert growing.complete() is None
    assert growing.readable() < len(LARGE)


async def test_growing_wakes_readers(open_growing: Grow) -> None:
    """Readers wake once their byte is here, or with the error if it will not come."""
    growing, _ = await open_growing(LARGE)
    waiting = asyncio.ensure_future(growing.wait_readable(10))
    late = asyncio.ensure_future(growing.wait_readable(len(LARGE) - 1))
    await write(growing, LARGE, 0, 100)
    assert await waiting == 100
    assert not late.done()
    growing.fail(StoreError("the disk is gone"))
    with pytest.raises(StoreError, match="the disk is gone"):
        await late
    assert await growing.wait_readable(10) == 100  # present bytes may still be read


async def test_growing_wakes_readers_in_batches(open_growing: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers wake for the first byte at once; then for WAKE_BYTES, or after a moment for fewer."""
    monkeypatch.setattr("mirror.store.partial.growing.WAKE_BYTES", 100)
    monkeypatch.setattr("mirror.store.partial.growing.WAKE_DELAY", 3600.0)
    growing, _ = await open_growing(LARGE)
    waiting = asyncio.ensure_future(growing.wait_readable(0))
    await write(growing, LARGE, 0, 10)
    assert await waiting == 10
    waiting = asyncio.ensure_future(growing.wait_readable(10))
    await write(growing, LARGE, 10, 109)
    await asyncio.sleep(0)
    assert not waiting.done()
    await write(growing, LARGE, 109, 110)
    assert await waiting == 110
    monkeypatch.setattr("mirror.store.partial.growing.WAKE_DELAY", 0.01)
    waiting = asyncio.ensure_future(growing.wait_readable(110))
    await write(growing, LARGE, 110, 111)
    assert await waiting == 111


async def test_growing_readers_do_not_wait_at_the_holdback(
    open_growing: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes up to the holdback come at once, and the rest once all is verified."""
    monkeypatch.setattr("mirror.store.partial.growing.WAKE_BYTES", 2 * len(LARGE))
    monkeypatch.setattr("mirror.store.partial.growing.WAKE_DELAY", 3600.0)
    growing, _ = await open_growing(LARGE)
    await write(growing, LARGE, 0, 10)
    assert await growing.wait_readable(0) == 10
    waiting = asyncio.ensure_future(growing.wait_readable(10))
    await write(growing, LARGE, 10, len(LARGE))
    assert await waiting == growing.readable()


async def test_growing_out_of_order_writes_are_readable_in_order(open_growing: Grow) -> None:
    """A later chunk alone is not readable; with the one before, both are."""
    growing, _ = await open_growing(LARGE)
    await write(growing, LARGE, CHUNK, 2 * CHUNK)
    assert growing.readable() == 0
    assert growing.readable(CHUNK + 5) == 2 * CHUNK  # for a reader of that range
    await write(growing, LARGE, 0, CHUNK)
    assert growing.readable() == 2 * CHUNK
    assert growing.received() == 2 * CHUNK


async def test_growing_restart_discards_wrong_bytes(open_growing: Grow) -> None:
    """Wrong bytes that no reader had are replaced by right ones, for the same readers."""
    content = b"x" * 100
    growing, _ = await open_growing(content)
    waiting = asyncio.ensure_future(growing.wait_readable(0))
    for data in (b"y" * 100, content):
        verifying = asyncio.ensure_future(growing.hash_contiguous())
        await write(growing, data, 0, 100)
        await verifying
        if growing.complete() is None:
            await growing.restart()
    assert await waiting == 100


async def test_growing_restart_holds_back_discarded_bytes(open_growing: Grow) -> None:
    """A reader that comes while the disk is busy gets no discarded byte, and then the new ones."""
    growing, _ = await open_growing(LARGE)
    await write(growing, bytes(len(LARGE)), 0, len(LARGE))
    await growing.hash_contiguous()
    assert growing.complete() is None
    restarting = asyncio.ensure_future(growing.restart())
    await asyncio.sleep(0)
    assert growing.readable() == 0
    await restarting
    assert growing.readable() == 0
    await write(growing, LARGE, 0, CHUNK)
    assert await growing.wait_readable(0) == CHUNK


async def test_growing_closed_has_no_new_readers(open_growing: Grow) -> None:
    """The blob is in the store by then; present readers go on, whether it was adopted or not."""
    growing, partial = await open_growing(b"x" * 100)
    await write(growing, b"x" * 100, 0, 100)
    reader = growing.open_reader()
    growing.close()
    assert growing.open_reader() is None
    assert reader is not None
    await asyncio.to_thread(partial.discard)
    with reader:
        assert os.pread(reader.fileno(), 100, 0) == b"x" * 100


async def test_growing_reader_outlives_the_chunk_map(open_growing: Grow) -> None:
    """A failed fill closes its files while readers still send the bytes they may."""
    growing, partial = await open_growing(LARGE)
    await write(growing, LARGE, 0, 1000)
    growing.close()
    assert partial.chunks is not None
    partial.chunks.close()
    assert await growing.wait_readable(0) == 1000
    growing.fail(StoreError("the disk is full"))
    with pytest.raises(StoreError, match="full"):
        await growing.wait_readable(1000)


async def test_growing_resumes_an_earlier_partial(tmp_path: Path) -> None:
    """A partial that was released and locked again has the same bytes and the same map."""
    executor = DiskExecutor(1)
    digest = Digest.of(LARGE)
    for expected in (0, CHUNK + 7):
        partial = await executor.run(Partial.lock, digest, tmp_path)
        assert partial is not None
        chunks = partial.chunks
        if chunks is None:
            chunks = await executor.run(partial.allocate, len(LARGE), CHUNK)
        growing = GrowingFile(partial, chunks, executor)
        assert growing.received() == expected
        if not expected:
            await write(growing, LARGE, 0, CHUNK + 7)
        await executor.run(partial.release)
    await executor.close(lambda: None)


async def test_growing_write_on_a_full_disk_is_a_store_error(
    open_growing: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full stands for the disk."""
    growing, partial = await open_growing(b"x" * 100)
    full = os.open("/dev/full", os.O_RDWR)
    monkeypatch.setattr(partial, "descriptor", os.dup2(full, os.dup(partial.descriptor)))
    os.close(full)
    with pytest.raises(StoreError, match="No space left"):
        await write(growing, b"x" * 100, 0, 100)
    os.close(partial.descriptor)
    monkeypatch.undo()
    assert growing.received() == 0
