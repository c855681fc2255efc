"""The disk threads: a fixed pool that does all disk work, so that the event loop does none."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

from mirror.store.errors import StoreError, describe, translated
from mirror.util.callbacks import ignore
from mirror.util.tasks import run_to_completion

P = ParamSpec("P")
R = TypeVar("R")

# Each thread holds one SQLite connection per database, and a disk serves few requests at a time well.
THREADS = 8

# How long, in seconds, `run_in_every_thread` waits for all threads to meet: one that is stuck in a call
# must not keep the others from closing their connections.
CLOSING_SECONDS = 10.0


class DiskExecutor:
    """A pool of a fixed number of threads: SQLite connections are per thread, so the pool must not change."""

    def __init__(self, count: int = THREADS, initialize: Callable[[], object] = ignore) -> None:
        """`initialize` is called in each thread before anything else; its errors show at a later call."""

        def begin() -> None:
            with suppress(Exception):  # an error here would break the whole pool
                initialize()

        self._count = count
        self.executor = ThreadPoolExecutor(count, thread_name_prefix="disk", initializer=begin)

    async def warm_up(self) -> None:
        """Start the threads, which the first calls would do otherwise."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self.executor, ignore) for _ in range(self._count)))

    def start(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]:
        """Start a call of `function` in a thread. The future raises StoreError for disk and SQLite errors.

        A call that has not begun when its future is cancelled is left out.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[R] = loop.create_future()

        def call() -> None:
            if outcome.cancelled():
                return
            try:
                with translated(describe(function)):
                    result = function(*args, **kwargs)
            except BaseException as error:
                loop.call_soon_threadsafe(_fail, outcome, error)
            else:
                loop.call_soon_threadsafe(_finish, outcome, result)

        # Not by run_in_executor: chaining two futures takes a fifth of what the hop costs.
        self.executor.submit(call)
        return outcome

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `function` in a thread. Raises StoreError for disk and SQLite errors."""
        return await self.start(function, *args, **kwargs)

    async def await_or_release(self, pending: "asyncio.Future[R]", release: Callable[[R], object]) -> R:
        """Await a resource that a thread is acquiring. When cancelled, call `release` with it, in a thread.

        CancelledError is raised after the release only: at shutdown the threads end once all tasks have.
        """
        try:
            return await asyncio.shield(pending)
        except asyncio.CancelledError:
            await run_to_completion(self._release_result(pending, release))
            raise

    async def _release_result(self, pending: "asyncio.Future[R]", release: Callable[[R], object]) -> None:
        with suppress(StoreError):
            await self.run(release, await pending)

    async def run_in_every_thread(self, work: Callable[[], object]) -> None:
        """Call `work` once in every thread, after all of them have met; not in a thread that is stuck."""
        meeting = threading.Barrier(self._count)

        def meet() -> None:
            with suppress(threading.BrokenBarrierError):
                meeting.wait(CLOSING_SECONDS)
            work()

        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(self.executor, meet) for _ in range(self._count)]
        await asyncio.gather(*calls, return_exceptions=True)

    async def close(self, last: Callable[[], object]) -> None:
        """Call `last`, which closes a thread's connections, in every thread, and end the threads."""
        await self.run_in_every_thread(last)
        self.executor.shutdown(wait=False)


def _finish(outcome: "asyncio.Future[R]", result: R) -> None:
    if not outcome.done():
        outcome.set_result(result)


def _fail(outcome: "asyncio.Future[R]", error: BaseException) -> None:
    if not outcome.done():
        outcome.set_exception(error)
