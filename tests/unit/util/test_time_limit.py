"""A time limit that stands still."""

import asyncio

import pytest

from mirror.util.time_limit import TimeLimit


async def test_time_limit_ends_the_wait() -> None:
    """The limit tells afterwards that no client has ended the wait."""
    limit = TimeLimit(0.0)
    with pytest.raises(TimeoutError):
        async with limit:
            await asyncio.Event().wait()
    assert limit.expired


async def test_time_limit_stands_still_while_suspended() -> None:
    """The limit begins again afterwards, and `deadline` is that of the new beginning."""
    with pytest.raises(TimeoutError):
        await _wait_suspended(TimeLimit(0.0))


async def _wait_suspended(limit: TimeLimit) -> None:
    async with limit:
        limit.suspend()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not limit.expired
        began = asyncio.get_running_loop().time()
        limit.resume()
        assert limit.deadline >= began
        await asyncio.Event().wait()


@pytest.mark.parametrize("over", [True, False])
async def test_time_limit_ends_early(over: bool) -> None:
    """The function decides at the early time."""
    asked = asyncio.Event()

    def check() -> bool:
        asked.set()
        return over

    limit = TimeLimit(3600.0, (0.0, check))
    waiting = asyncio.ensure_future(_wait(limit))
    await asked.wait()
    if over:
        with pytest.raises(TimeoutError):
            await waiting
    else:
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert limit.expired is over


async def _wait(limit: TimeLimit) -> None:
    async with limit:
        await asyncio.Event().wait()


async def test_time_limit_without_seconds_or_outside_its_block() -> None:
    """Nothing is limited, and the methods do nothing."""
    for limit in (TimeLimit(), TimeLimit(0.0)):
        limit.suspend()
        limit.resume()
        assert not limit.expired
    async with limit:
        pass
    limit.resume()
    limit.suspend()
    assert not limit.expired


async def test_time_limit_that_ends_early_at_its_end() -> None:
    """Both times are the same for an upstream that answered last: that is no error in the event loop."""
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    limit = TimeLimit(0.0, (0.0, lambda: True))
    with pytest.raises(TimeoutError):
        await _wait(limit)
    assert faults == []
