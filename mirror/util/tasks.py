"""Background tasks with an owner: referenced, named, never lost, ended by `close`."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from mirror.util.log import get_logger

T = TypeVar("T")

log = get_logger(__name__)


class Tasks:
    """The loop holds only weak references to tasks; this holds strong ones until they are done."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def running(self) -> int:
        """How many there are now."""
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run `work` on its own. What it raises is logged, even when nobody awaits it."""
        if self._closed:
            work.close()
            raise RuntimeError(f"cannot start {name}: shutting down")
        task = asyncio.create_task(work, name=name)  # noqa: TID251  # the one place
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancel what runs and wait until it has ended. Nothing can be spawned afterwards."""
        self._closed = True
        while self._running:
            tasks = list(self._running)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._running.difference_update(tasks)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", task=task.get_name(), reason=repr(error))


async def first_of(*work: Coroutine[Any, Any, object], seconds: float | None = None) -> None:
    """Wait until one of these is done, but no longer than that; the others are cancelled."""
    tasks = [asyncio.create_task(each) for each in work]  # noqa: TID251  # none outlives this call
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """Await what a thread is doing. When cancelled, wait for it all the same, and only then leave.

    A thread cannot be called back: leaving at once would close files under its hands.
    """
    task = asyncio.create_task(work)  # noqa: TID251  # awaited to its end right here
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def stop_task(task: "asyncio.Task[None] | None") -> None:
    """Cancel and wait until it has ended."""
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task])
