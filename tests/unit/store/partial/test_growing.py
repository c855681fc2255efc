"""The growing file: how far readers may read, and when."""

import asyncio
import os
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.partial.growing import HOLDBACK_BYTES, GrowingFile
from mirror.store.partial.growing_writer import GrowingWriter
from mirror.store.partial.partial import Partial
from tests.growing import CHUNK, LARGE, Grow, write


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
    writer, _ = await open_growing(content)
    await write(writer, content, 0, written)
    assert writer.file.readable() == readable


async def test_growing_wakes_readers(open_growing: Grow) -> None:
    """Readers wake once their byte is here, or with the error if it will not come."""
    writer, _ = await open_growing(LARGE)
    waiting = asyncio.ensure_future(writer.file.wait_readable(10))
    late = asyncio.ensure_future(writer.file.wait_readable(len(LARGE) - 1))
    await write(writer, LARGE, 0, 100)
    assert await waiting == 100
    assert not late.done()
    writer.file.fail(StoreError("the disk is gone"))
    with pytest.raises(StoreError, match="the disk is gone"):
        await late
    assert await writer.file.wait_readable(10) == 100  # present bytes may still be read


async def test_growing_wakes_readers_in_batches(open_growing: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers wake for the first byte at once; then for WAKE_BYTES, or after a moment for fewer."""
    monkeypatch.setattr("mirror.store.partial.growing.WAKE_BYTES", 100)
    monkeypatch.setattr("mirror.store.partial.growing.WAKE_DELAY", 3600.0)
    writer, _ = await open_growing(LARGE)
    waiting = asyncio.ensure_future(writer.file.wait_readable(0))
    await write(writer, LARGE, 0, 10)
    assert await waiting == 10
    waiting = asyncio.ensure_future(writer.file.wait_readable(10))
    await write(writer, LARGE, 10, 109)
    await asyncio.sleep(0)
    assert not waiting.done()
    await write(writer, LARGE, 109, 110)
    assert await waiting == 110
    monkeypatch.setattr("mirror.store.partial.growing.WAKE_DELAY", 0.01)
    waiting = asyncio.ensure_future(writer.file.wait_readable(110))
    await write(writer, LARGE, 110, 111)
    assert await waiting == 111


async def test_growing_readers_do_not_wait_at_the_holdback(
    open_growing: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes up to the holdback come at once, and the rest once all is verified."""
    monkeypatch.setattr("mirror.store.partial.growing.WAKE_BYTES", 2 * len(LARGE))
    monkeypatch.setattr("mirror.store.partial.growing.WAKE_DELAY", 3600.0)
    writer, _ = await open_growing(LARGE)
    await write(writer, LARGE, 0, 10)
    assert await writer.file.wait_readable(0) == 10
    waiting = asyncio.ensure_future(writer.file.wait_readable(10))
    await write(writer, LARGE, 10, len(LARGE))
    assert await waiting == writer.file.readable()


async def test_growing_out_of_order_writes_are_readable_in_order(open_growing: Grow) -> None:
    """A later chunk alone is not readable; with the one before, both are."""
    writer, _ = await open_growing(LARGE)
    await write(writer, LARGE, CHUNK, 2 * CHUNK)
    assert writer.file.readable() == 0
    assert writer.file.readable(CHUNK + 5) == 2 * CHUNK  # for a reader of that range
    await write(writer, LARGE, 0, CHUNK)
    assert writer.file.readable() == 2 * CHUNK
    assert writer.file.received() == 2 * CHUNK


async def test_growing_closed_has_no_new_readers(open_growing: Grow) -> None:
    """The blob is in the store by then; present readers go on, whether it was adopted or not."""
    writer, partial = await open_growing(b"x" * 100)
    await write(writer, b"x" * 100, 0, 100)
    reader = writer.file.open_reader()
    writer.file.close()
    assert writer.file.open_reader() is None
    assert reader is not None
    await asyncio.to_thread(partial.discard)
    with reader:
        assert os.pread(reader.fileno(), 100, 0) == b"x" * 100


async def test_growing_reader_outlives_the_chunk_map(open_growing: Grow) -> None:
    """A failed fill closes its files while readers still send the bytes they may."""
    writer, partial = await open_growing(LARGE)
    await write(writer, LARGE, 0, 1000)
    writer.file.close()
    assert partial.chunks is not None
    partial.chunks.close()
    assert await writer.file.wait_readable(0) == 1000
    writer.file.fail(StoreError("the disk is full"))
    with pytest.raises(StoreError, match="full"):
        await writer.file.wait_readable(1000)


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
        writer = GrowingWriter(GrowingFile(partial, chunks), partial, executor)
        assert writer.file.received() == expected
        if not expected:
            await write(writer, LARGE, 0, CHUNK + 7)
        await executor.run(partial.release)
    await executor.close(lambda: None)
