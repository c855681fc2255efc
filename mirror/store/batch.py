"""Small disk jobs done together: one thread hop, and one transaction, for all that came at the same time."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from mirror.store.executor import DiskExecutor

I = TypeVar("I")  # noqa: E741  # item
O = TypeVar("O")  # noqa: E741  # outcome


class Batcher(Generic[I, O]):
    """`work` is given items in the order they came, and returns as many outcomes; one call at a time.

    What comes while a call is running waits for the next one: alone an item is not delayed, in a crowd the
    crowd pays once. An error of `work` is everybody's.
    """

    def __init__(self, executor: DiskExecutor, work: Callable[[Sequence[I]], Sequence[O]]) -> None:
        self._executor = executor
        self._work = work
        self._waiting: list[tuple[I, asyncio.Future[O]]] = []
        self._running = False

    async def do(self, item: I) -> O:
        """Raises StoreError. Cancelled, the item is done all the same."""
        return await self.start(item)

    def start(self, item: I) -> "asyncio.Future[O]":
        """The outcome to be."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[O] = loop.create_future()
        if not self._waiting and not self._running:
            # Not at once: others may come in the same turn of the loop.
            loop.call_soon(self._begin)
        self._waiting.append((item, outcome))
        return outcome

    def _begin(self) -> None:
        items, self._waiting = self._waiting, []
        self._running = True
        running = self._executor.start(self._work, [item for item, _ in items])
        running.add_done_callback(partial(self._end, [outcome for _, outcome in items]))

    def _end(self, waiting: Sequence["asyncio.Future[O]"], done: "asyncio.Future[Sequence[O]]") -> None:
        self._running = False
        if self._waiting:
            self._begin()
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        outcomes = [] if error is not None else done.result()
        for index, future in enumerate(waiting):
            if future.done():
                continue
            if error is None:
                future.set_result(outcomes[index])
            elif done.cancelled():
                future.cancel()
            else:
                future.set_exception(error)
