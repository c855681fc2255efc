"""Disk threads: work off the loop, and connections closed in each thread."""

import asyncio
import threading

import pytest

from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.util.callbacks import ignore


async def test_executor_runs_work_in_a_thread() -> None:
    """Arguments, result and errors come through."""
    executor = DiskExecutor(2)
    assert await executor.run(threading.get_ident) != threading.get_ident()
    assert await executor.run(int, "ff", base=16) == 255

    def read_settings() -> None:
        raise FileNotFoundError(2, "No such file")

    with pytest.raises(StoreError, match=r"read settings: .*No such file"):
        await executor.run(read_settings)
    await executor.close(lambda: None)


async def test_executor_close_visits_every_thread_once() -> None:
    """Connections belong to threads: each thread has to close its own."""
    executor = DiskExecutor(4)
    seen: list[int] = []
    await asyncio.gather(*(executor.run(threading.get_ident) for _ in range(8)))
    await executor.close(lambda: seen.append(threading.get_ident()))
    assert len(seen) == len(set(seen)) == 4


async def test_executor_initializes_each_thread_once() -> None:
    """The initializer runs before anything else, and one that fails breaks nothing."""
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


async def test_executor_releases_what_a_cancelled_caller_acquired() -> None:
    """The caller leaves after the release: threads end when all tasks have."""
    executor, released = DiskExecutor(1), list[str]()
    gate = threading.Event()

    def acquire() -> str:
        gate.wait()
        return "lock"

    waiting = asyncio.ensure_future(executor.await_or_release(executor.start(acquire), released.append))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert released == ["lock"]
    await executor.close(ignore)


async def test_executor_leaves_out_a_cancelled_call() -> None:
    """A caller that leaves before its turn costs the disk nothing; one that leaves later harms no other."""
    executor, called = DiskExecutor(1), list[str]()
    begun, gate = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        gate.wait()

    holding = executor.start(hold)
    left = executor.start(called.append, "left")
    stays = executor.start(called.append, "stays")
    await asyncio.to_thread(begun.wait)
    left.cancel()
    holding.cancel()
    gate.set()
    await stays
    assert called == ["stays"]
    await executor.close(ignore)


async def test_executor_passes_any_error_on() -> None:
    """Errors that are not the disk's come as they are: also those that no handler of Exception sees."""
    executor = DiskExecutor(1)

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await executor.run(leave)
    assert await executor.run(int, "1") == 1
    await executor.close(ignore)
