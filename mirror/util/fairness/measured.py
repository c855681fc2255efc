"""Measurement of the time that the steps of a coroutine take, and not of what it waits for."""

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import ContextVar
from time import perf_counter
from types import coroutine
from typing import Any, Protocol, TypeVar

V = TypeVar("V")


class Charged(Protocol):
    """Account of a request; `measured`: whether its time counts."""

    measured: bool

    def add(self, seconds: float) -> None: ...


# The account of the request that the running task works for.
_charged: ContextVar[Charged | None] = ContextVar("charged", default=None)


async def run_measured(work: Callable[[], Awaitable[V]], account: Charged | None = None) -> V:
    """Return the result of `work`; charge its steps to `account`, or else to that of the request."""
    if account is None:
        account = _charged.get()
    if account is None or not account.measured:
        return await work()
    reset = _charged.set(account)
    try:
        return await _stepwise(_awaiting(work), account)
    finally:
        _charged.reset(reset)


async def _awaiting(work: Callable[[], Awaitable[V]]) -> V:
    return await work()


@coroutine
def _stepwise(work: Coroutine[Any, Any, V], account: Charged) -> Generator[Any, Any, V]:
    """Run a coroutine, and charge the time of each of its steps."""
    step: Callable[[Any], Any] = work.send
    given: Any = None
    while True:
        began = perf_counter()
        try:
            awaited = step(given)
        except StopIteration as end:
            result: V = end.value
            return result
        finally:
            account.add(perf_counter() - began)
        try:
            step, given = work.send, (yield awaited)
        except BaseException as error:  # cancellation too: the coroutine deals with it
            step, given = work.throw, error
