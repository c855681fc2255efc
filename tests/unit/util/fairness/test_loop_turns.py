"""Turns of the event loop: bounded work in each, in order."""

import asyncio
from functools import partial
from itertools import pairwise

from mirror.util.fairness.loop_turns import SHORT_PART, SHORT_TURNS, LoopTurns


async def test_loop_turns_bound_the_work_of_a_turn() -> None:
    """Pieces beyond the bound wait for later turns, in which other callbacks run, too."""
    turns, order = LoopTurns(2), list[str]()

    async def piece(name: str) -> None:
        await turns.turn(1)
        order.append(name)

    def other() -> None:
        order.append("other")
        if len(order) < 20:
            loop.call_soon(other)

    loop = asyncio.get_running_loop()
    tasks = [asyncio.ensure_future(piece(str(number))) for number in range(6)]
    loop.call_soon(other)
    await asyncio.gather(*tasks)
    pieces = [each for each in order if each != "other"]
    assert pieces == [str(number) for number in range(6)]
    runs = "".join("x" if each != "other" else " " for each in order).split()
    assert all(len(run) <= 2 for run in runs)
    assert len(runs) >= 3


async def test_loop_turns_take_room_only_if_none_wait() -> None:
    """A piece that comes late does not overtake those that wait."""
    turns, called = LoopTurns(1), asyncio.Event()
    assert turns.take(1)
    assert not turns.take(1)
    turns.wait(1, called.set)
    turns.give_back(1)
    assert not turns.take(1)
    await called.wait()
    assert len(turns) == 0


async def test_loop_turns_of_a_cancelled_waiter_are_lost_to_nobody() -> None:
    """Later pieces have their turn although an earlier one is cancelled."""
    turns = LoopTurns(1)
    assert turns.take(1)
    first, second = (asyncio.ensure_future(turns.turn(1)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert len(turns) == 0


async def test_loop_turns_rest_when_there_is_no_work() -> None:
    """An idle loop is not woken."""
    turns = LoopTurns(1)
    assert turns.take(1)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not turns._scheduled
    assert turns.take(1)


async def test_loop_turns_are_short_once_a_client_has_connected() -> None:
    """A part of the work in each of the next turns; then as much as before."""
    turns, order = LoopTurns(SHORT_PART), list[int]()
    turns.shorten()
    assert turns.take(SHORT_PART)
    for number in range(3 * SHORT_PART):
        turns.wait(1, partial(order.append, number))
    lengths = [0]
    while len(turns):  # a queue has no event
        await asyncio.sleep(0)
        lengths.append(len(order))
    done = [after - before for before, after in pairwise(lengths)]
    assert done[:SHORT_TURNS] == [1] * SHORT_TURNS
    assert max(done) == SHORT_PART
