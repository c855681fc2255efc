"""Jobs that come together are done together."""

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


async def test_what_comes_together_is_one_call(executor: DiskExecutor) -> None:
    """Outcomes in order; what comes while a call runs is the next one."""
    calls: list[list[int]] = []
    gate = threading.Event()

    def double(items: Sequence[int]) -> list[int]:
        calls.append(list(items))
        gate.wait(5)
        return [2 * item for item in items]

    combined = Batcher(executor, double)
    first = [asyncio.ensure_future(combined.do(number)) for number in range(3)]
    while not calls:  # noqa: ASYNC110  # a thread tells nobody
        await asyncio.sleep(0)
    second = [asyncio.ensure_future(combined.do(number)) for number in range(3, 5)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*first, *second) == [0, 2, 4, 6, 8]
    assert calls == [[0, 1, 2], [3, 4]]


async def test_an_error_is_everybodys(executor: DiskExecutor) -> None:
    """And the next call is made as if nothing had been."""
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


async def test_who_leaves_does_not_stop_the_others(executor: DiskExecutor) -> None:
    """Its item is done all the same."""
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
