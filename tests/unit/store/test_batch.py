"""Batches: jobs that arrive together are done together."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from mirror.store.batch import Batcher
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor


@pytest.fixture
async def executor() -> AsyncIterator[DiskExecutor]:
    pool = DiskExecutor(2)
    yield pool
    await pool.close(lambda: None)


async def test_batch_joins_items_that_arrive_together(executor: DiskExecutor) -> None:
    """Outcomes come in order; items that arrive during a call make the next call."""
    calls: list[list[int]] = []
    gate = threading.Event()

    def double(items: Sequence[int]) -> list[int]:
        calls.append(list(items))
        gate.wait(5)
        return [2 * item for item in items]

    combined = Batcher(executor, double)
    first = [asyncio.ensure_future(combined.do(number)) for number in range(3)]
    while not calls:  # noqa: ASYNC110  # a thread cannot set an event
        await asyncio.sleep(0)
    second = [asyncio.ensure_future(combined.do(number)) for number in range(3, 5)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*first, *second) == [0, 2, 4, 6, 8]
    assert calls == [[0, 1, 2], [3, 4]]


async def test_batch_error_is_raised_for_each_item(executor: DiskExecutor) -> None:
    """The next call is made as usual."""
    broken = True

    def work(items: Sequence[int]) -> Sequence[int]:
        if broken:
            raise OSError("full")
        return items

    combined = Batcher(executor, work)
    for answer in await asyncio.gather(combined.do(1), combined.do(2), return_exceptions=True):
        assert isinstance(answer, StoreError)
    broken = False
    assert await combined.do(3) == 3


async def test_batch_goes_on_when_a_caller_is_cancelled(executor: DiskExecutor) -> None:
    """The cancelled caller's item is done too."""
    done: list[int] = []

    def work(items: Sequence[int]) -> Sequence[int]:
        done.extend(items)
        return items

    combined = Batcher(executor, work)
    leaving, staying = asyncio.ensure_future(combined.do(1)), asyncio.ensure_future(combined.do(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == 2
    assert done == [1, 2]
