"""Background tasks with an owner, which references and names them and ends them in `close`."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from mirror.util.log import get_logger

T = TypeVar("T")
P = ParamSpec("P")

# Text of up to this many bytes is parsed in less time than it takes to wake a thread.
SHORT_TEXT = 16 * 1024

log = get_logger(__name__)


class Tasks:
    """An owner of tasks. The event loop holds only weak references; the owner holds strong ones."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def running(self) -> int:
        """Number of tasks that run now."""
        return len(self._running)

    @property
    def closed(self) -> bool:
        """Return whether the owner ends: what a signal or a timer would begin now, nobody needs any more."""
        return self._closed

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run `work` in the background. An exception is logged even if no caller awaits the task."""
        if self._closed:
            work.close()
            raise RuntimeError(f"cannot start {name}: shutting down")
        task = asyncio.create_task(work, name=name)  # noqa: TID251  # the one place
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancel the running tasks and wait for their end. `spawn` raises RuntimeError afterwards."""
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
    """Wait until the first of `work` is done, for `seconds` at most, and cancel the others."""
    tasks = [asyncio.create_task(each) for each in work]  # noqa: TID251  # none outlives this call
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """Await work that a thread does. When cancelled, wait for the work's end before raising CancelledError.

    A thread cannot be cancelled: a caller that left immediately would close files that the thread still uses.
    """
    task = asyncio.create_task(work)  # noqa: TID251  # awaited to its end right here
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def off_loop(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of `work` on a text of `size` bytes: of a thread's, unless the text is short."""
    return work(*args, **kwargs) if size <= SHORT_TEXT else await asyncio.to_thread(work, *args, **kwargs)


async def stop_task(task: "asyncio.Task[None] | None") -> None:
    """Cancel the task, if there is one, and wait for its end."""
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task])
