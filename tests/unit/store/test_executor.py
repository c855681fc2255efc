"""Disk threads: work off the loop, and connections closed in each of them."""

import asyncio
import threading

import pytest

from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor


async def test_work_is_done_elsewhere() -> None:
    """In another thread, with its arguments, its result and its errors."""
    executor = DiskExecutor(2)
    assert await executor.run(threading.get_ident) != threading.get_ident()
    assert await executor.run(int, "ff", base=16) == 255

    def read_settings() -> None:
        raise FileNotFoundError(2, "No such file")

    with pytest.raises(StoreError, match=r"read settings: .*No such file"):
        await executor.run(read_settings)
    await executor.close(lambda: None)


async def test_closing_visits_every_thread_once() -> None:
    """Connections belong to threads: each has to close its own."""
    executor = DiskExecutor(4)
    seen: list[int] = []
    await asyncio.gather(*(executor.run(threading.get_ident) for _ in range(8)))
    await executor.close(lambda: seen.append(threading.get_ident()))
    assert len(seen) == len(set(seen)) == 4


async def test_each_thread_is_prepared_once() -> None:
    """Before anything else, and a preparation that fails spoils nothing."""
    prepared: list[int] = []

    def prepare() -> None:
        prepared.append(threading.get_ident())
        raise OSError("not now")

    executor = DiskExecutor(3, prepare)
    await executor.warm_up()
    used = {await executor.run(threading.get_ident) for _ in range(20)}
    assert used <= set(prepared)
    assert len(prepared) == len(set(prepared)) <= 3
    await executor.close(lambda: None)
