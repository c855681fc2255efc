"""The writer of a growing file: what is written, thrown away, and what a full disk does."""

import asyncio
import os

import pytest

from mirror.store.blobs import quota
from mirror.store.errors import StoreError
from mirror.store.partial import growing_writer
from tests.growing import CHUNK, LARGE, Grow, write


async def test_growing_restart_discards_wrong_bytes(open_growing: Grow) -> None:
    """Wrong bytes that no reader had are replaced by right ones, for the same readers."""
    content = b"x" * 100
    writer, _ = await open_growing(content)
    waiting = asyncio.ensure_future(writer.file.wait_readable(0))
    for data in (b"y" * 100, content):
        verifying = asyncio.ensure_future(writer.verifier.hash_contiguous())
        await write(writer, data, 0, 100)
        await verifying
        if writer.verifier.complete() is None:
            await writer.restart()
    assert await waiting == 100


async def test_growing_restart_holds_back_discarded_bytes(open_growing: Grow) -> None:
    """A reader that comes while the disk is busy gets no discarded byte, and then the new ones."""
    writer, _ = await open_growing(LARGE)
    await write(writer, bytes(len(LARGE)), 0, len(LARGE))
    await writer.verifier.hash_contiguous()
    assert writer.verifier.complete() is None
    restarting = asyncio.ensure_future(writer.restart())
    await asyncio.sleep(0)
    assert writer.file.readable() == 0
    await restarting
    assert writer.file.readable() == 0
    await write(writer, LARGE, 0, CHUNK)
    assert await writer.file.wait_readable(0) == CHUNK


async def test_growing_write_on_a_full_disk_is_a_store_error(
    open_growing: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full stands for the disk."""
    writer, partial = await open_growing(b"x" * 100)
    full = os.open("/dev/full", os.O_RDWR)
    monkeypatch.setattr(partial, "descriptor", os.dup2(full, os.dup(partial.descriptor)))
    os.close(full)
    with pytest.raises(StoreError, match="No space left"):
        await write(writer, b"x" * 100, 0, 100)
    os.close(partial.descriptor)
    monkeypatch.undo()
    assert writer.file.received() == 0


async def test_growing_write_asks_for_room_behind_the_first_bytes(
    open_growing: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that a client waits for come first; the next look is a whole step later."""
    monkeypatch.setattr(growing_writer, "FIRST_ROOM", 2 * CHUNK)
    writer, _ = await open_growing(LARGE)
    writer.ask_for_room_soon()
    await write(writer, LARGE, 0, CHUNK)
    assert not writer.file.room_due.is_set()
    await write(writer, LARGE, CHUNK, 2 * CHUNK)
    assert writer.file.room_due.is_set()
    writer.file.room_due.clear()
    await write(writer, LARGE, 2 * CHUNK, len(LARGE))
    assert not writer.file.room_due.is_set()


async def test_growing_write_asks_for_no_room_early_unless_told(
    open_growing: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size that nothing but a manifest names makes no room before its bytes come."""
    monkeypatch.setattr(growing_writer, "FIRST_ROOM", CHUNK)
    monkeypatch.setattr(quota, "ROOM_STEP", 3 * CHUNK)
    writer, _ = await open_growing(LARGE)
    await write(writer, LARGE, 0, 2 * CHUNK)
    assert not writer.file.room_due.is_set()
    await write(writer, LARGE, 2 * CHUNK, 3 * CHUNK)
    assert writer.file.room_due.is_set()
