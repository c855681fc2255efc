"""Single flight for small answers: one question to an upstream at a time, however many ask it."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from mirror.util.tasks import Tasks

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """The work runs in a task of its own, so nobody who waits can cancel it for the others."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._running: dict[K, asyncio.Future[V]] = {}

    def running(self, key: K) -> bool:
        return key in self._running

    async def do(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """The result of `work`, or of the same work that is already running; raises what it raises."""
        answer = self._running.get(key)
        if answer is None:
            answer = asyncio.get_running_loop().create_future()
            # An error that everybody has stopped waiting for is no news.
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._running[key] = answer
            task = self._tasks.spawn(self._run(key, work, answer), name=f"single {key}")
            task.add_done_callback(partial(self._end, key, answer))
        return await asyncio.shield(answer)

    async def _run(self, key: K, work: Callable[[], Awaitable[V]], answer: "asyncio.Future[V]") -> None:
        try:
            value = await work()
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(value)
        finally:
            # Before anybody hears of it: whoever asks again then starts anew.
            self._running.pop(key, None)

    def _end(self, key: K, answer: "asyncio.Future[V]", _: object) -> None:
        """A task that was cancelled, perhaps before its first step, leaves nobody waiting."""
        self._running.pop(key, None)
        answer.cancel()
