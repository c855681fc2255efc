"""Fills of other processes, to which pulls give way."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.cache.pull import other_fills
from mirror.cache.pull.other_fills import OtherFills
from mirror.oci.digest import Digest
from mirror.store.lock import data_path
from mirror.store.store import Store

# A moment at which the partial of a test was written last: one that is still to come does not grow old.
LATER = time.time() + 3600


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    monkeypatch.setattr(other_fills, "LOOK_SECONDS", 0.01)
    opened = await Store.open(tmp_path / "cache")
    yield opened
    await opened.close()


def grow(store: Store, data: bytes, written: float = LATER) -> Digest:
    """Write the partial of a blob, as a process that fills it does."""
    path = data_path(Digest.of(data), store.folder.partials)
    path.write_bytes(data)
    os.utime(path, (written, written))
    return Digest.of(data)


async def together(fills: OtherFills) -> None:
    """Hold four turns at once: this does not end if one of them has to wait for another."""
    barrier = asyncio.Barrier(4)

    async def one() -> None:
        async with fills.give_way():
            await barrier.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(one())


async def one_by_one(fills: OtherFills) -> None:
    """Take four turns, and fail if two are held at once."""
    held = 0

    async def one() -> None:
        nonlocal held
        async with fills.give_way():
            held += 1
            for _ in range(20):
                await asyncio.sleep(0)
                assert held == 1
            held -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(one())


async def test_pulls_give_way_while_another_process_fills(store: Store) -> None:
    """One blob at a time then; all at once while nothing grows but what this process fills itself."""
    await together(OtherFills(store.transfers, lambda _: False))
    digest = await asyncio.to_thread(grow, store, b"of another process")
    await one_by_one(OtherFills(store.transfers, lambda _: False))
    await together(OtherFills(store.transfers, lambda each: each == digest))
    await asyncio.to_thread(grow, store, b"of another process", 1.0)
    await together(OtherFills(store.transfers, lambda _: False))


async def test_pulls_go_on_together_once_the_other_fill_has_ended(store: Store) -> None:
    """A pull that waits for the one turn goes on as soon as turns are free."""
    await asyncio.to_thread(grow, store, b"of another process")
    fills, second = OtherFills(store.transfers, lambda _: False), asyncio.Event()

    async def follow() -> None:
        async with fills.give_way():
            second.set()

    async with asyncio.TaskGroup() as group, fills.give_way():
        group.create_task(follow())
        await asyncio.sleep(0)
        await asyncio.to_thread(grow, store, b"of another process", 1.0)
        await second.wait()
