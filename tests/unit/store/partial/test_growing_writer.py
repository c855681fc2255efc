"""The writer of a growing file: what is written, thrown away, and what a full disk does."""

import asyncio
import os

import pytest

from mirror.store.errors import StoreError
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
