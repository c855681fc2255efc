"""The least pace of a client: measured while the mirror waits for it, and held only without room."""

import asyncio
from collections.abc import Callable

import pytest

from mirror.web import pace
from mirror.web.pace import Pace


class Client:
    """A client and its connection. `looks`: how often the cache was asked whether it lacks room."""

    def __init__(self, *, crowded: bool) -> None:
        self.taken = 0
        self.ended = asyncio.Event()
        self.looks = asyncio.Event()
        self._crowded = crowded

    def when_crowded(self, call: Callable[[], object]) -> None:
        self.looks.set()
        if self._crowded:
            call()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "PACE_SECONDS", 0.01)


def measured(client: Client) -> Pace:
    return Pace(lambda: client.taken, client.when_crowded, client.ended.set)


async def test_pace_ends_a_client_that_takes_nothing() -> None:
    """The connection ends, once, when the cache lacks room."""
    client = Client(crowded=True)
    measure = measured(client)
    measure.begin_send()
    await client.ended.wait()
    assert measure.ended
    measure.close()


async def test_pace_spares_a_slow_client_with_room() -> None:
    """The cache is asked at each look, and the client goes on."""
    client = Client(crowded=False)
    measure = measured(client)
    measure.begin_send()
    for _ in range(2):
        client.looks.clear()
        await client.looks.wait()
    assert not measure.ended
    measure.close()


async def test_pace_spares_a_client_that_is_fast_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client at the least rate is not looked at."""
    monkeypatch.setattr(pace, "LEAST_RATE", 1)
    client = Client(crowded=True)
    measure = measured(client)
    measure.begin_send()
    measure._look()
    client.taken = 10_000
    await looks_of(measure, 1)
    assert not client.looks.is_set()
    measure.close()


async def test_pace_counts_no_wait_for_disk_or_fill() -> None:
    """Time outside of `begin_send` and `end_send` is not the client's."""
    client = Client(crowded=True)
    measure = measured(client)
    measure.begin_send()
    measure.end_send()
    await looks_of(measure, 3)
    assert not client.looks.is_set()
    measure.close()


async def test_pace_ends_nothing_after_the_body() -> None:
    """The answer about the room may come when the body has ended."""
    client = Client(crowded=True)
    measure = measured(client)
    measure.close()
    measure._end()
    assert not measure.ended
    assert not client.ended.is_set()


async def looks_of(measure: Pace, count: int) -> None:
    """Wait until the timer has fired `count` times."""
    for _ in range(count):
        timer = measure._timer
        while measure._timer is timer:  # noqa: ASYNC110  # nothing else tells
            await asyncio.sleep(0)


async def test_pace_spares_a_line_of_one_megabit_in_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client at 1 Mbit/s takes a layer of 5 GB to its end, though others wait for room all the time."""
    monkeypatch.undo()
    client, now = Client(crowded=True), 0.0
    measure = measured(client)
    measure._clock = lambda: now
    for _ in range(5_000_000_000 // (125_000 * int(pace.PACE_SECONDS))):
        measure.begin_send()
        now += pace.PACE_SECONDS
        client.taken += 125_000 * int(pace.PACE_SECONDS)
        measure._look()
    assert client.taken > 4_900_000_000
    assert not client.looks.is_set()
    client.taken += 1_000_000  # the same client, once it is as slow as no honest line
    now += pace.PACE_SECONDS
    measure._look()
    assert measure.ended
    measure.close()
