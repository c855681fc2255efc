"""Single-flight: concurrent calls with the same key share one execution."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from mirror.util.tasks import Tasks
from mirror.util.tracebacks import without_frames

K = TypeVar("K")
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Calls by key. The work runs in its own task, so a cancelled caller does not affect the others."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._running: dict[K, asyncio.Future[V]] = {}

    def running(self, key: K) -> bool:
        """Return whether a call with this key is running."""
        return key in self._running

    async def do(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """Return the result of `work`, or of the call with the same key that is already running.

        Every caller gets the exception that the work raises.
        """
        answer = self._running.get(key)
        if answer is None:
            answer = asyncio.get_running_loop().create_future()
            # Retrieve the exception: asyncio would report an error whose callers have all left.
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._running[key] = answer
            task = self._tasks.spawn(self._run(key, work, answer), name=f"single {key}")
            task.add_done_callback(partial(self._end, key, answer))
        try:
            return await asyncio.shield(answer)
        finally:
            del answer  # holds the exception, whose traceback refers to this frame

    async def _run(self, key: K, work: Callable[[], Awaitable[V]], answer: "asyncio.Future[V]") -> None:
        try:
            value = await work()
        except Exception as error:
            answer.set_exception(without_frames(error))
        else:
            answer.set_result(value)
        finally:
            # Before the callers resume: a caller that calls again then starts a new execution.
            self._running.pop(key, None)

    def _end(self, key: K, answer: "asyncio.Future[V]", _: object) -> None:
        """Cancel the waiting callers of a task that was cancelled, perhaps before its first step."""
        self._running.pop(key, None)
        answer.cancel()
