"""Batches of small disk jobs: one thread hop and one transaction for all jobs that arrive together."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from mirror.store.executor import DiskExecutor

I = TypeVar("I")  # noqa: E741  # item
O = TypeVar("O")  # noqa: E741  # outcome


class Batcher(Generic[I, O]):
    """Calls `work` with the items that have arrived, in their order; `work` returns an outcome for each.

    One call runs at a time, and items that arrive meanwhile wait for the next one: a single item is not
    delayed, and a crowd pays once. An error of `work` is the outcome of all items of that call.
    """

    def __init__(self, executor: DiskExecutor, work: Callable[[Sequence[I]], Sequence[O]]) -> None:
        self._executor = executor
        self._work = work
        self._waiting: list[tuple[I, asyncio.Future[O]]] = []
        self._running = False

    async def do(self, item: I) -> O:
        """Return the item's outcome. Raises StoreError. The item is done even if the caller is cancelled."""
        return await self.start(item)

    def start(self, item: I) -> "asyncio.Future[O]":
        """Return a future of the item's outcome."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[O] = loop.create_future()
        if not self._waiting and not self._running:
            # After this turn of the loop, in which more items may arrive.
            loop.call_soon(self._begin)
        self._waiting.append((item, outcome))
        return outcome

    def _begin(self) -> None:
        items, self._waiting = self._waiting, []
        self._running = True
        running = self._executor.start(self._work, [item for item, _ in items])
        running.add_done_callback(partial(self._end, [outcome for _, outcome in items]))

    def _end(self, futures: Sequence["asyncio.Future[O]"], done: "asyncio.Future[Sequence[O]]") -> None:
        self._running = False
        if self._waiting:
            self._begin()
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        outcomes = [] if error is not None else done.result()
        for index, future in enumerate(futures):
            if future.done():
                continue
            if error is None:
                future.set_result(outcomes[index])
            elif done.cancelled():
                future.cancel()
            else:
                future.set_exception(error)
