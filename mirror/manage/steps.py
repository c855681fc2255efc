"""Steps and calls of a use case: the same blocking code for a command and for an event loop.

A command iterates over `Steps`, or calls `Call.now`, in its own thread. In an event loop both are awaited:
the work is then done in one thread of the facade, in batches, and can be cancelled between two steps.

Nothing here imports asyncio before an event loop uses it: a command starts faster without it.
"""

import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from mirror.util.progress.amounts import ProgressAmount

if TYPE_CHECKING:
    import asyncio
    from threading import Event

    from mirror.store.executor import DiskExecutor

P = ParamSpec("P")
T = TypeVar("T")

# A batch ends after this many seconds, or steps. A step that takes longer is a batch of its own.
BATCH_SECONDS = 0.05
BATCH_STEPS = 500


class StepThread:
    """The one thread that does a facade's work for an event loop; the first call starts it.

    The use cases are for one thread each, and a database connection belongs to its thread.
    """

    def __init__(self) -> None:
        self._executor: DiskExecutor | None = None

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
        """Start a call in the thread. The future raises StoreError for disk and SQLite errors."""
        if self._executor is None:
            from mirror.store.executor import DiskExecutor

            self._executor = DiskExecutor(1)
        return self._executor.start(function, *args, **kwargs)

    async def close(self, last: Callable[[], object]) -> None:
        """Call `last` in the thread, if there is one, and end it."""
        if self._executor is not None:
            await self._executor.close(last)
            self._executor = None


class Call(Generic[T]):
    """One blocking call: `now` does it here, `await` in the thread of the facade."""

    def __init__(self, worker: StepThread, function: Callable[[], T]) -> None:
        self._worker = worker
        self._function = function

    def now(self) -> T:
        """Return the result, of a call in this thread."""
        return self._function()

    def __await__(self) -> Generator[Any, None, T]:
        return self._run().__await__()

    async def _run(self) -> T:
        from mirror.util.tasks import run_to_completion

        async def work() -> T:
            return await self._worker.start(self._function)

        return await run_to_completion(work())


class Steps(Generic[T]):
    """The steps of a use case, one by one. Each iteration begins the use case again.

    A cancelled iteration ends with the step that is running; the caller does not see that step. A caller that
    leaves the loop early closes it with `contextlib.aclosing`.
    """

    def __init__(
        self,
        worker: StepThread,
        begin: Callable[[], Iterator[T]],
        progress: Callable[[], ProgressAmount] | None = None,
    ) -> None:
        """`progress` returns that of the use case, if it knows better than by counting steps."""
        self._worker = worker
        self._begin = begin
        self._progress = progress
        self._done = 0

    @property
    def progress(self) -> ProgressAmount:
        """The progress so far: the number of steps, of an unknown total, or what the use case says."""
        return ProgressAmount(self._done) if self._progress is None else self._progress()

    def __iter__(self) -> Generator[T]:
        self._done = 0
        steps = self._begin()
        try:
            for each in steps:
                self._done += 1
                yield each
        finally:
            if isinstance(steps, Generator):
                steps.close()

    async def __aiter__(self) -> AsyncGenerator[T]:
        import asyncio
        from threading import Event

        steps, stop = iter(self), Event()
        try:
            while True:
                batch = self._worker.start(_batch, steps, stop)
                try:
                    found = await asyncio.shield(batch)
                except asyncio.CancelledError:
                    stop.set()
                    await asyncio.wait([batch])
                    raise
                for each in found:
                    yield each
                if not found:
                    return
        finally:
            await asyncio.shield(self._worker.start(steps.close))


def _batch(steps: Iterator[T], stop: "Event") -> list[T]:
    """Return the next steps; none at the end."""
    found: list[T] = []
    until = time.monotonic() + BATCH_SECONDS
    for each in steps:
        found.append(each)
        if len(found) >= BATCH_STEPS or stop.is_set() or time.monotonic() >= until:
            break
    return found
