"""The writer of a growing file and its verifier: what is written, thrown away, released; a full disk."""

import asyncio
import os

import pytest

from mirror.store.blobs import quota
from mirror.store.errors import StoreError
from mirror.store.partial import growing_writer
from mirror.store.partial.demand import Demand
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


async def test_growing_releases_verified_content(open_growing: Grow) -> None:
    """Content is hashed as it comes, and then readable to its end."""
    writer, partial = await open_growing(LARGE)
    verifying = asyncio.ensure_future(writer.verifier.hash_contiguous())
    await write(writer, LARGE, 0, len(LARGE))
    await verifying
    verified = writer.verifier.complete()
    assert verified is not None
    assert (verified.size, verified.path) == (len(LARGE), partial.data_path)
    assert await writer.file.wait_readable(len(LARGE) - 1) == len(LARGE)
    reader = writer.file.open_reader()
    assert reader is not None
    with reader:
        assert os.pread(reader.fileno(), len(LARGE), 0) == LARGE


async def test_growing_never_releases_wrong_content(open_growing: Grow) -> None:
    """One wrong byte is enough; an incomplete blob is not verified either."""
    writer, _ = await open_growing(LARGE)
    assert writer.verifier.complete() is None
    verifying = asyncio.ensure_future(writer.verifier.hash_contiguous())
    await write(writer, LARGE[:-1] + bytes([LARGE[-1] ^ 1]), 0, len(LARGE))
    await verifying
    assert writer.verifier.complete() is None
    assert writer.file.readable() < len(LARGE)


async def test_growing_verifier_waits_until_all_is_wanted(open_growing: Grow) -> None:
    """A blob that is read by ranges costs no hashing, however many of its bytes are here."""
    writer, _ = await open_growing(LARGE)
    writer.file.demand = Demand()
    await write(writer, LARGE, CHUNK, len(LARGE))
    verifying = asyncio.ensure_future(writer.verifier.hash_contiguous())
    await write(writer, LARGE, 0, CHUNK)
    assert writer.verifier.complete() is None
    assert not verifying.done()
    writer.file.demand.set_whole()
    writer.verifier.wake()
    await verifying
    assert writer.verifier.complete() is not None
