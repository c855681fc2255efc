"""Single-flight: concurrent calls with the same key share one execution."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from mirror.util.fairness.client import current_client
from mirror.util.fairness.fair_queue import FairQueue
from mirror.util.fairness.turns import LookupTurns
from mirror.util.tasks import Tasks
from mirror.util.tracebacks import without_frames

K = TypeVar("K")
V = TypeVar("V")


# Executions of one table that go on for later callers after their callers have left.
MOST_ABANDONED = 64

# Executions of one group of a table, whether callers wait for them or not.
MOST_RUNNING = 512


class Busy(Exception):
    """The group has as many executions as may run, and no further one is started."""


class SingleFlight(Generic[K, V]):
    """Calls by key. The work runs in its own task, so a cancelled caller does not affect the others.

    Work goes on without callers, but not without bound: beyond MOST_ABANDONED the first abandoned work ends,
    and work that waits for its turn ends with its last caller. Beyond `limit` executions of a group, an
    upstream for instance, a further one is refused, or the latest one of the client that has the most.
    """

    def __init__(
        self,
        tasks: Tasks,
        limit: int = MOST_RUNNING,
        refusal: Callable[[str], Exception] = Busy,
        turns: LookupTurns | None = None,
    ) -> None:
        """`refusal` makes the error of a call that is refused, of the name of its group.

        `turns`: what an execution waits for.
        """
        self._tasks = tasks
        self._limit = limit
        self._refusal = refusal
        self._turns = turns
        self._groups: dict[str, FairQueue[asyncio.Future[V]]] = {}
        self._queued: set[asyncio.Future[V]] = set()  # executions that wait for their turn
        self._running: dict[K, asyncio.Future[V]] = {}
        self._callers: Counter[asyncio.Future[V]] = Counter()
        self._abandoned: dict[asyncio.Future[V], Callable[[], object]] = {}
        self._ends: dict[asyncio.Future[V], Callable[[], object]] = {}

    def running(self, key: K) -> bool:
        """Return whether a call with this key is running."""
        return key in self._running

    def full(self, group: str) -> bool:
        """Return whether no further execution of the group would be started."""
        return len(self._groups.get(group, ())) >= self._limit

    async def do(self, key: K, work: Callable[[], Awaitable[V]], group: str = "") -> V:
        """Return the result of `work`, or of the call with the same key that is already running.

        Every caller gets the exception that the work raises. Raises the refusal if the group is full.
        """
        answer = self._running.get(key)
        if answer is None:
            if self.full(group):
                self._make_room(group)
            answer = self._start(key, work, group)
        self._callers[answer] += 1
        self._abandoned.pop(answer, None)
        try:
            return await asyncio.shield(answer)
        finally:
            self._leave(answer)
            del answer  # holds the exception, whose traceback refers to this frame

    def _start(self, key: K, work: Callable[[], Awaitable[V]], group: str) -> "asyncio.Future[V]":
        answer: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        # Retrieve the exception: asyncio would report an error whose callers have all left.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        client = current_client()
        in_turn = work if self._turns is None else partial(self._in_turn, self._turns, work, answer, group)
        task = self._tasks.spawn(self._run(key, in_turn, answer), name=f"single {key}")
        self._running[key] = answer
        self._groups.setdefault(group, FairQueue()).push(client, answer)
        task.add_done_callback(partial(self._end, key, answer, group, client))
        self._ends[answer] = partial(self._stop, key, answer, task)
        return answer

    async def _in_turn(
        self,
        turns: LookupTurns,
        work: Callable[[], Awaitable[V]],
        answer: "asyncio.Future[V]",
        group: str,
    ) -> V:
        async def begin() -> V:
            self._queued.discard(answer)
            return await work()

        self._queued.add(answer)
        try:
            return await turns.run(begin, partial(self._refusal, group))
        finally:
            self._queued.discard(answer)

    def _make_room(self, group: str) -> None:
        """End the latest execution of the client that has the most; raise the refusal if that is this one.

        Not one that several callers wait for.
        """
        last = self._groups[group].take_for(current_client(), lambda each: self._callers[each] <= 1)
        if last is None:
            raise self._refusal(group)
        if not last.done():
            last.set_exception(self._refusal(group))
        if last in self._ends:
            self._ends[last]()

    def _leave(self, answer: "asyncio.Future[V]") -> None:
        """Record that a caller has left; end the first abandoned work if there is too much of it."""
        self._callers[answer] -= 1
        if self._callers[answer]:
            return
        del self._callers[answer]
        if answer in self._queued:
            self._ends[answer]()
        elif answer in self._ends and not answer.done():
            self._abandoned[answer] = self._ends[answer]
            if len(self._abandoned) > MOST_ABANDONED:
                self._abandoned.pop(next(iter(self._abandoned)))()

    def _stop(self, key: K, answer: "asyncio.Future[V]", task: "asyncio.Task[None]") -> None:
        if self._running.get(key) is answer:
            del self._running[key]  # a new caller starts a new execution
        task.cancel()

    async def _run(self, key: K, work: Callable[[], Awaitable[V]], answer: "asyncio.Future[V]") -> None:
        try:
            value = await work()
        except Exception as error:
            if not answer.done():  # not ended for another client's
                answer.set_exception(without_frames(error))
        else:
            if not answer.done():
                answer.set_result(value)
        finally:
            # Before the callers resume: a caller that calls again then starts a new execution.
            self._forget(key, answer)

    def _end(self, key: K, answer: "asyncio.Future[V]", group: str, client: str, _: object) -> None:
        """Cancel the waiting callers of a task that was cancelled, perhaps before its first step."""
        if (running := self._groups.get(group)) is not None:
            running.remove(client, answer)
            if not running:
                del self._groups[group]
        self._forget(key, answer)
        answer.cancel()

    def _forget(self, key: K, answer: "asyncio.Future[V]") -> None:
        self._ends.pop(answer, None)
        self._abandoned.pop(answer, None)
        if self._running.get(key) is answer:
            del self._running[key]
