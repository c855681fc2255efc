"""Single-flight: concurrent callers share one execution, and no caller can break it for the others."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from mirror.util.fairness.client import set_client
from mirror.util.fairness.turns import LEAST, LookupTurns
from mirror.util.single_flight import MOST_ABANDONED, SingleFlight
from mirror.util.tasks import Tasks


class Work:
    """Work that counts its runs and waits at a gate."""

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


async def test_single_flight_runs_once_for_many_callers(tasks: Tasks) -> None:
    """All callers get the one result; a later call runs the work again."""
    single: SingleFlight[str, int] = SingleFlight(tasks)
    work = Work()
    futures = await waiting(single, work, 10)
    assert single.running("key")
    work.gate.set()
    assert await asyncio.gather(*futures) == [1] * 10
    assert not single.running("key")
    assert await single.do("key", work) == 2


async def test_single_flight_survives_a_cancelled_caller(tasks: Tasks) -> None:
    """The cancellation of the caller that started the work does not affect the others."""
    single: SingleFlight[str, int] = SingleFlight(tasks)
    work = Work()
    first, second = await waiting(single, work, 2)
    first.cancel()
    work.gate.set()
    assert await second == 1


async def test_single_flight_error_reaches_every_caller(tasks: Tasks) -> None:
    """An error is not remembered: the next call runs the work again."""
    single: SingleFlight[str, int] = SingleFlight(tasks)
    work = Work()
    work.error = ValueError("no")
    futures = await waiting(single, work, 3)
    work.gate.set()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [str(each) for each in results] == ["no"] * 3
    work.error = None
    assert await single.do("key", work) == 2


async def test_single_flight_error_without_callers_is_silent(tasks: Tasks) -> None:
    """asyncio does not report an error whose callers have all left as never retrieved."""
    single: SingleFlight[str, int] = SingleFlight(tasks)
    work = Work()
    work.error = ValueError("no")
    (only,) = await waiting(single, work, 1)
    only.cancel()
    work.gate.set()
    with pytest.raises(ValueError, match="no"):
        await single.do("key", work)


async def test_single_flight_shutdown_cancels_the_callers() -> None:
    """The callers are cancelled together with the work."""
    tasks = Tasks()
    single: SingleFlight[str, int] = SingleFlight(tasks)
    (only,) = await waiting(single, Work(), 1)
    await tasks.close()
    with pytest.raises(asyncio.CancelledError):
        await only


async def test_single_flight_bounds_abandoned_work(tasks: Tasks) -> None:
    """Work without callers goes on, the latest of it; the rest ends, and nothing is kept of either."""
    flights: SingleFlight[int, int] = SingleFlight(tasks)
    release = asyncio.Event()

    async def work() -> int:
        await release.wait()
        return 1

    for key in range(3 * MOST_ABANDONED):
        caller = asyncio.ensure_future(flights.do(key, work))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
    while tasks.running > MOST_ABANDONED:  # noqa: ASYNC110  # each ends in a turn of the loop
        await asyncio.sleep(0)
    assert [flights.running(key) for key in (0, 3 * MOST_ABANDONED - 1)] == [False, True]
    release.set()
    assert await flights.do(3 * MOST_ABANDONED - 1, work) == 1
    while tasks.running:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert [*flights._running, *flights._callers, *flights._abandoned, *flights._ends] == []


async def test_single_flight_refuses_beyond_the_limit_of_a_group(tasks: Tasks) -> None:
    """A full group starts nothing more; running work is joined, and other groups have their own limit."""
    single: SingleFlight[str, int] = SingleFlight(tasks, limit=2, refusal=KeyError)
    work = Work()
    calls = [asyncio.create_task(single.do(key, work, "a")) for key in ("1", "2", "2")]
    await asyncio.sleep(0)
    assert (single.full("a"), single.full("b")) == (True, False)
    with pytest.raises(KeyError, match="a"):
        await single.do("3", work, "a")
    other = asyncio.create_task(single.do("4", work, "b"))
    await asyncio.sleep(0)
    work.gate.set()
    assert len(await asyncio.gather(*calls, other)) == 4
    assert not single.full("a")
    assert await single.do("3", work, "a") == 4
    assert not single._groups


async def test_single_flight_limit_is_free_again_after_abandoned_work_ends(tasks: Tasks) -> None:
    """Work that ends without a caller, cancelled or not, counts no more."""
    single: SingleFlight[int, int] = SingleFlight(tasks, limit=MOST_ABANDONED + 1)
    work = Work()
    for key in range(MOST_ABANDONED + 1):
        call = asyncio.create_task(single.do(key, work, "a"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
    await asyncio.sleep(0)
    assert not single.full("a")


async def test_single_flight_makes_room_for_a_client_with_less(tasks: Tasks) -> None:
    """A full group ends the latest work of the client with the most, unless several callers wait for it."""
    single: SingleFlight[str, int] = SingleFlight(tasks, limit=3, refusal=KeyError)
    work = Work()
    set_client("192.0.2.1")
    calls = {key: asyncio.create_task(single.do(key, work, "g")) for key in "abc"}
    joined = asyncio.create_task(single.do("c", work, "g"))
    await asyncio.sleep(0)
    set_client("192.0.2.2")
    other = asyncio.create_task(single.do("d", work, "g"))
    with pytest.raises(KeyError):
        await calls.pop("b")
    with pytest.raises(KeyError):
        await single.do("e", work, "g")  # the other client would have as many as the first
    work.gate.set()
    assert len(await asyncio.gather(*calls.values(), joined, other)) == 4
    assert not single._groups


async def test_single_flight_drops_work_that_waits_with_its_last_caller(tasks: Tasks) -> None:
    """Work that has not had its turn is no use to anybody; work that has begun goes on."""
    turns = LookupTurns(lambda: True)
    single: SingleFlight[int, int] = SingleFlight(tasks, turns=turns)
    work = Work()
    calls = [asyncio.create_task(single.do(key, work)) for key in range(LEAST + 1)]
    while work.runs < LEAST:  # noqa: ASYNC110  # each begins in a turn of the loop
        await asyncio.sleep(0)
    calls[0].cancel()
    calls[-1].cancel()
    await asyncio.wait([calls[0], calls[-1]])
    await asyncio.sleep(0)
    assert [single.running(key) for key in (0, LEAST)] == [True, False]
    work.gate.set()
    await asyncio.gather(*calls[1:-1])
    assert (work.runs, turns.waiting, single._queued) == (LEAST, 0, set())
