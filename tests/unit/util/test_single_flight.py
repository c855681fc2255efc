"""Single flight: one question at a time, and nobody can spoil it for the others."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mirror.util.single_flight import SingleFlight
from mirror.util.tasks import Tasks


class Work:
    """Counts its runs and waits at a gate."""

    def __init__(self) -> None:
        self.runs = 0
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.runs += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.runs


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    owner = Tasks()
    yield owner
    await owner.close()


async def waiting(single: SingleFlight[str, int], work: Work, count: int) -> list[asyncio.Task[int]]:
    futures = [asyncio.create_task(single.do("key", work)) for _ in range(count)]
    await asyncio.sleep(0)
    return futures


async def test_many_ask_and_one_works(tasks: Tasks) -> None:
    """All have the one result; afterwards the question may be asked anew."""
    single: SingleFlight[str, int] = SingleFlight(tasks)
    work = Work()
    futures = await waiting(single, work, 10)
    assert single.running("key")
    work.gate.set()
    assert await asyncio.gather(*futures) == [1] * 10
    assert not single.running("key")
    assert await single.do("key", work) == 2


async def test_whoever_leaves_leaves_alone(tasks: Tasks) -> None:
    """The first one, who began it, is cancelled: the others do not notice."""
    single: SingleFlight[str, int] = SingleFlight(tasks)
    work = Work()
    first, second = await waiting(single, work, 2)
    first.cancel()
    work.gate.set()
    assert await second == 1


async def test_an_error_is_everybodys(tasks: Tasks) -> None:
    """And forgotten: the next one works again."""
    single: SingleFlight[str, int] = SingleFlight(tasks)
    work = Work()
    work.error = ValueError("no")
    futures = await waiting(single, work, 3)
    work.gate.set()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [str(each) for each in results] == ["no"] * 3
    work.error = None
    assert await single.do("key", work) == 2


async def test_an_error_that_nobody_waits_for_is_no_noise(tasks: Tasks) -> None:
    """All have left; the failure is not reported as never retrieved."""
    single: SingleFlight[str, int] = SingleFlight(tasks)
    work = Work()
    work.error = ValueError("no")
    (only,) = await waiting(single, work, 1)
    only.cancel()
    work.gate.set()
    with pytest.raises(ValueError, match="no"):
        await single.do("key", work)


async def test_shutting_down_ends_those_who_wait() -> None:
    """They are cancelled with the work."""
    tasks = Tasks()
    single: SingleFlight[str, int] = SingleFlight(tasks)
    (only,) = await waiting(single, Work(), 1)
    await tasks.close()
    with pytest.raises(asyncio.CancelledError):
        await only
