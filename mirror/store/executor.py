"""The few threads in which all disk work is done, so that none of it is done in the event loop."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from mirror.store.errors import describe, translated

P = ParamSpec("P")
R = TypeVar("R")

# Each thread holds one SQLite connection per index, and a disk serves few requests at a time well.
THREADS = 8

# A thread that is stuck in a system call must not keep the others from closing their connections.
CLOSING_SECONDS = 10.0


class DiskExecutor:
    """A fixed pool; SQLite connections are per thread, so the pool must not grow and shrink."""

    def __init__(self, count: int = THREADS, first: Callable[[], Any] | None = None) -> None:
        """`first` is called in each thread before anything else; what it raises is raised again by others."""

        def begin() -> None:
            with suppress(Exception):  # else the whole pool would be broken
                if first is not None:
                    first()

        self._count = count
        self.executor = ThreadPoolExecutor(count, thread_name_prefix="disk", initializer=begin)

    async def warm_up(self) -> None:
        """Start the threads, which otherwise the first calls do."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self.executor, bool) for _ in range(self._count)))

    def start(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]:
        """Begin a call of `function` in a thread. StoreError for what the disk or SQLite says."""

        def call() -> R:
            with translated(describe(function)):
                return function(*args, **kwargs)

        return asyncio.get_running_loop().run_in_executor(self.executor, call)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `function` in a thread. Raises StoreError for what the disk or SQLite says."""
        return await self.start(function, *args, **kwargs)

    async def run_in_every_thread(self, work: Callable[[], Any]) -> None:
        """Call `work` once in every thread, when all of them have come to it; not in those that are stuck."""
        meeting = threading.Barrier(self._count)

        def meet() -> None:
            with suppress(threading.BrokenBarrierError):
                meeting.wait(CLOSING_SECONDS)
            work()

        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(self.executor, meet) for _ in range(self._count)]
        await asyncio.gather(*calls, return_exceptions=True)

    async def close(self, last: Callable[[], Any]) -> None:
        """Call `last` once in every thread (it closes that thread's connections), then end them."""
        await self.run_in_every_thread(last)
        self.executor.shutdown(wait=False)
