"""Turns of look-ups: few at a time in a saturated process, clients in turn, bounded waits."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from mirror.util.fairness.client import set_client
from mirror.util.fairness.turns import LEAST, LOOK_SECONDS, MOST, MOST_WAITING, LookupTurns


class Refused(Exception):
    """A look-up that has no turn."""


class Clock:
    """Seconds, which a test moves."""

    now = 1e6

    def __call__(self) -> float:
        return self.now


class Lookups:
    """Look-ups that run until `end`; `began` has their names in the order of their turns."""

    def __init__(self, *, saturated: bool = True) -> None:
        self.clock = Clock()
        self.turns = LookupTurns(lambda: saturated, self.clock)
        self.turns.wait_seconds = 3600.0
        self.began: list[str] = []
        self.expected, self.enough = 0, asyncio.Event()  # set when so many have begun
        self._gates: dict[str, asyncio.Event] = {}

    async def start(self, client: str, count: int = 1) -> "list[asyncio.Task[str]]":
        """Start look-ups of a client; return their tasks when each of them waits or runs."""
        set_client(client)
        first = len(self._gates)
        tasks = [asyncio.create_task(self._look_up(f"{client}{first + number}")) for number in range(count)]
        await settled()
        return tasks

    async def end(self, count: int = 1) -> None:
        """End the oldest `count` look-ups that run."""
        for name in [each for each in self.began if not self._gates[each].is_set()][:count]:
            self._gates[name].set()
        await settled()

    def _look_up(self, name: str) -> Coroutine[Any, Any, str]:
        self._gates[name] = asyncio.Event()

        async def work() -> str:
            self.began.append(name)
            if len(self.began) == self.expected:
                self.enough.set()
            await self._gates[name].wait()
            return name

        return self.turns.run(work, Refused)


async def settled() -> None:
    """Let each task go on until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_turns_are_not_limited_in_a_process_that_is_not_busy() -> None:
    """Waiting for a far registry costs nothing."""
    lookups = Lookups(saturated=False)
    tasks = await lookups.start("a", 100)
    assert len(lookups.began) == 100
    await lookups.end(100)
    await asyncio.gather(*tasks)


async def test_turns_are_few_in_a_saturated_process() -> None:
    """LEAST look-ups run, and each one that ends makes place for one that waits."""
    lookups = Lookups()
    tasks = await lookups.start("a", LEAST + 2)
    assert (len(lookups.began), lookups.turns.waiting) == (LEAST, 2)
    await lookups.end()
    assert (len(lookups.began), lookups.turns.waiting) == (LEAST + 1, 1)
    await lookups.end(LEAST + 1)
    await lookups.end()
    assert len(await asyncio.gather(*tasks)) == LEAST + 2


async def test_turns_window_follows_the_load() -> None:
    """The window is halved while the process is saturated, and grows by half afterwards."""
    load = [False]
    lookups = Lookups()
    lookups.turns.saturated = lambda: load[0]
    lookups.turns.turn_seconds = 3600.0
    tasks = await lookups.start("a", 64)
    load[0] = True
    windows = []
    for _ in range(5):
        lookups.clock.now += 1.5 * LOOK_SECONDS
        tasks += await lookups.start("a")
        windows.append(lookups.turns.window)
    assert windows == [32, 16, 2 * LEAST, LEAST, LEAST]
    load[0] = False
    lookups.clock.now += 1.5 * LOOK_SECONDS
    tasks += await lookups.start("a")
    assert lookups.turns.window == LEAST + LEAST // 2
    await lookups.end(64)
    lookups.clock.now += 1.5 * LOOK_SECONDS
    await lookups.start("a")
    await lookups.end(64)
    assert lookups.turns.window == MOST
    await asyncio.gather(*tasks)


async def test_turns_of_clients_alternate() -> None:
    """One look-up of another client waits for one turn, and not behind a hundred."""
    lookups = Lookups()
    await lookups.start("a", 100)
    await lookups.start("b")
    await lookups.end(2)
    assert [each[0] for each in lookups.began[LEAST:]] == ["a", "b"]


async def test_turns_end_with_their_time() -> None:
    """A look-up that waits for its upstream goes on without a turn, and others have theirs."""
    lookups = Lookups()
    lookups.turns.turn_seconds = 0.5
    await lookups.start("a", 2 * LEAST)
    assert len(lookups.began) == LEAST
    lookups.clock.now += 0.5
    lookups.expected = 2 * LEAST
    await lookups.enough.wait()  # a timer gives the turns: no look-up ends here


async def test_turns_are_waited_for_a_limited_time() -> None:
    """A look-up that has no turn by then is refused, and leaves no trace."""
    lookups = Lookups()
    tasks = await lookups.start("a", LEAST)
    lookups.turns.wait_seconds = 0.0
    (late,) = await lookups.start("b")
    with pytest.raises(Refused):
        await late
    assert lookups.turns.waiting == 0
    await lookups.end(LEAST)
    await asyncio.gather(*tasks)


async def test_turns_queue_is_bounded_and_its_room_shared() -> None:
    """Beyond the bound the client with the most is refused, and the other one waits."""
    lookups = Lookups()
    flood = await lookups.start("a", LEAST + MOST_WAITING)
    (one_more,) = await lookups.start("a")
    with pytest.raises(Refused):
        await one_more
    (other,) = await lookups.start("b")
    with pytest.raises(Refused):
        await flood[-1]
    assert lookups.turns.waiting == MOST_WAITING
    await lookups.end(2)
    assert lookups.began[-1].startswith("b")
    assert not other.done()


async def test_turns_of_clients_that_left_are_given_to_others() -> None:
    """A cancelled look-up frees its place in the queue, and its turn."""
    lookups = Lookups()
    tasks = await lookups.start("a", LEAST + 2)
    tasks[-2].cancel()
    tasks[0].cancel()
    await settled()
    assert (len(lookups.began), lookups.turns.waiting) == (LEAST + 1, 0)
    assert lookups.began[-1] == f"a{LEAST + 1}"


async def test_turns_are_shared_with_look_ups_inside() -> None:
    """A look-up within another one has that one's turn: it waits for nothing."""
    lookups = Lookups()
    await lookups.start("a", LEAST - 1)

    async def inner() -> str:
        return "inner"

    async def outer() -> str:
        return await asyncio.create_task(lookups.turns.run(inner, Refused))

    assert await lookups.turns.run(outer, Refused) == "inner"
