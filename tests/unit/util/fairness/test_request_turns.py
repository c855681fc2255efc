"""Turns of requests that begin: bounded in each turn of the loop, small ones first, clients in turn."""

import asyncio
from collections.abc import Callable

from mirror.util.callbacks import zero
from mirror.util.fairness.request_turns import TURN_SECONDS, RequestTurns


def appender(order: list[str], name: str) -> Callable[[], None]:
    return lambda: order.append(name)


async def test_request_turns_bound_the_requests_of_a_turn() -> None:
    """Requests beyond the bound begin in later turns, in order; with nothing to do the loop is not woken."""
    turns, order = RequestTurns(2, 1, zero), list[str]()
    assert [turns.take(blob=True) for _ in range(3)] == [True, True, False]
    for name in "abc":
        turns.wait("client", appender(order, name), blob=True)
    lengths = []
    while len(turns):  # a queue has no event
        await asyncio.sleep(0)
        lengths.append(len(order))
    assert order == ["a", "b", "c"]
    assert max(after - before for before, after in zip([0, *lengths], lengths, strict=False)) == 2
    for _ in range(3):
        await asyncio.sleep(0)
    assert not turns._scheduled


async def test_request_turns_begin_small_requests_first() -> None:
    """A small request overtakes those for blobs, of which a part of each turn is left."""
    turns, order = RequestTurns(2, 1, zero), list[str]()
    assert turns.take(blob=True)
    assert turns.take(blob=True)
    for name in ("blob 1", "blob 2", "blob 3"):
        turns.wait("client", appender(order, name), blob=True)
    assert not turns.take(blob=False)  # in this turn too many have begun
    for name in ("small 1", "small 2"):
        turns.wait("client", appender(order, name), blob=False)
    while len(turns):  # noqa: ASYNC110  # a queue has no event
        await asyncio.sleep(0)
    assert order == ["small 1", "blob 1", "small 2", "blob 2", "blob 3"]


async def test_request_turns_take_overtakes_none_of_its_kind() -> None:
    """A small request begins at once while only blobs wait; a request for a blob does not."""
    turns = RequestTurns(1, 0, zero)
    assert turns.take(blob=True)
    first, second = asyncio.Event(), asyncio.Event()
    turns.wait("client", first.set, blob=True)
    turns.wait("client", second.set, blob=True)
    await first.wait()
    assert not turns.take(blob=True)
    turns.wait("client", lambda: None, blob=False)
    assert not turns.take(blob=False)
    await second.wait()


async def test_request_turns_serve_clients_in_turn() -> None:
    """One client with many requests delays another one by one request."""
    turns, order = RequestTurns(1, 0, zero), list[str]()
    assert turns.take(blob=True)
    for number in range(3):
        turns.wait("many", appender(order, f"many {number}"), blob=True)
    turns.wait("one", appender(order, "one"), blob=True)
    while len(turns):  # noqa: ASYNC110  # a queue has no event
        await asyncio.sleep(0)
    assert order == ["many 0", "one", "many 1", "many 2"]


async def test_request_turns_that_none_waits_for_are_over_after_a_while() -> None:
    """No callback of the loop is needed while few requests come."""
    now = [0.0]
    turns = RequestTurns(1, 0, lambda: now[0])
    assert turns.take(blob=True)
    assert not turns.take(blob=True)
    now[0] = TURN_SECONDS
    assert turns.take(blob=True)
    assert not turns._scheduled


async def test_request_turns_tell_that_requests_wait() -> None:
    """The callback comes in each turn until the last request has begun: bodies have short turns meanwhile."""
    turns, told, begun = RequestTurns(1, 0, zero), list[int](), list[str]()
    turns.on_waiting = lambda: told.append(len(turns))
    assert turns.take(blob=True)
    assert not told
    for name in "abc":
        turns.wait("client", appender(begun, name), blob=True)
    while len(turns):  # noqa: ASYNC110  # a queue has no event
        await asyncio.sleep(0)
    assert told == [1, 2, 3, 2, 1]
