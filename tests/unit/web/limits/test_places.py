"""Places: the order of who waits, the wait's bounds, and places in other workers."""

import asyncio

import pytest

from mirror.access.limits import Bounds, Limit, Per, Shared
from mirror.system.shared_table import SharedTable
from mirror.web.limits import places as module
from mirror.web.limits.places import WAITING_PER_PLACE, Bound, Places

SHARED = Shared(Limit(1, "guests", Per.CLIENT, Bounds()), "10.0.0.1")
OTHER = Shared(Limit(1, "guests", Per.CLIENT, Bounds()), "10.0.0.2")
ONE, TWO = Bound.of("fills", SHARED, 1), Bound.of("fills", SHARED, 2)


@pytest.fixture(autouse=True)
def _no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 3600.0)


class Waiters:
    """Requests that wait for a place and keep it."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.order: list[int] = []

    async def start(self, number: int, bound: Bound) -> "asyncio.Task[Bound | None]":
        async def wait() -> Bound | None:
            full = await self.places.wait([bound], 3600.0)
            if full is None:
                self.places.take([bound])
                self.order.append(number)
            return full

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        return task


async def test_places_go_to_those_who_wait_in_their_order() -> None:
    """A newcomer does not overtake; a waiter that leaves has no turn, and two places are two turns."""
    places = Places(SharedTable().row(0))
    held = [places.take([TWO]), places.take([TWO])]
    waiters = Waiters(places)
    tasks = [await waiters.start(number, TWO) for number in range(4)]
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    for give_back in held:
        give_back()
    assert places.lacking([TWO]) is not None
    await asyncio.gather(tasks[1], tasks[2])
    assert waiters.order == [1, 2]
    tasks[3].cancel()
    await asyncio.gather(tasks[3], return_exceptions=True)


async def test_places_of_other_clients_are_their_own() -> None:
    places = Places(SharedTable().row(0))
    places.take([ONE])
    assert places.lacking([ONE]) is ONE
    assert places.lacking([Bound.of("fills", OTHER, 1)]) is None
    assert places.lacking([Bound.of("connections", SHARED, 1)]) is None
    assert places.lacking([]) is None


async def test_places_are_given_back_once() -> None:
    places = Places(SharedTable().row(0))
    first = places.take([TWO])
    places.take([TWO])
    first()
    first()
    places.take([TWO])
    assert places.lacking([TWO]) is TWO


async def test_places_are_waited_for_by_a_bounded_crowd_and_for_a_bounded_time() -> None:
    places = Places(SharedTable().row(0))
    places.take([ONE])
    assert await places.wait([ONE], 0.0) is ONE
    waiters = Waiters(places)
    tasks = [await waiters.start(number, ONE) for number in range(WAITING_PER_PLACE)]
    assert await places.wait([ONE], 3600.0) is ONE
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert places._waiting == {}


async def test_place_in_another_worker_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)
    table = SharedTable()
    first, second = Places(table.row(0)), Places(table.row(1))
    give_back = first.take([ONE])
    waiting = await Waiters(second).start(0, ONE)
    assert not waiting.done()
    give_back()
    assert await waiting is None
