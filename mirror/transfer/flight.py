"""Flights: single-flight for fills. Requests for a digest that is being filled join the running fill.

A fill outlives its clients (invariant 3), and what outlives its clients is bounded:

1. A fill takes its lock and its files at its turn. Fills that clients wait for have the first turns.
2. A fill of which nothing has come yet ends when its last client leaves. Two kinds go on: a single small
   request from its turn on, and a fill that a client left because the client's time was up (`Flight.kept`).
3. A fill with bytes goes on. When a client's fill needs the turn of one without a client, the latter gives
   way, and its partial stays: it is resumed at its next turn, or ends if the queue is full or no byte has
   come. A prefetch is always resumed.
4. Fills that wait for a turn are limited. A further one is refused, unless its upstream has a free turn, or a
   fill that waits has lost its clients, or another client has more of them than this one: that one ends.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import NoRoom, PartialLost, ShuttingDown, StoreError
from mirror.store.partial.demand import Demand
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.fill import Publish
from mirror.upstream.errors import Failure, UpstreamError, WrongBytes
from mirror.util.callbacks import ignore
from mirror.util.fairness.client import current_client
from mirror.util.fairness.fair_queue import FairQueue
from mirror.util.log import get_logger
from mirror.util.slots import SlotClaim, SlotGroup, SlotPool
from mirror.util.tasks import Tasks
from mirror.util.time_limit import TimeLimit
from mirror.util.tracebacks import without_frames

log = get_logger(__name__)

Error = TypeVar("Error", UpstreamError, StoreError)

SHUTTING_DOWN = ShuttingDown("the mirror is shutting down")

# Retry-After, in seconds, for a request that found the queue full: downloads end all the time.
QUEUE_RETRY_AFTER = 10.0


def queue_full(waiting: int) -> UpstreamError:
    """Return the error of a request that is refused because too many downloads wait in this mirror."""
    message = f"this mirror is busy: {waiting} downloads wait for a connection; try again in a few seconds"
    return UpstreamError(Failure.RATE_LIMITED, message, retry_after=QUEUE_RETRY_AFTER)


class RunningFill(Protocol):
    """The work behind a flight: a Fill, or a SmallFill.

    `on_queue` is called with True when the fill waits for a connection, with False when it has one.
    """

    on_queue: Callable[[bool], object]

    @property
    def unanswered(self) -> str | None:
        """Return why the upstream gave no answer about the repository, if an old link opened the blob."""
        ...

    @property
    def brief(self) -> bool:
        """Return whether the fill is one small request: its end would cost a connection and save little."""
        ...

    @property
    def urgent(self) -> bool:
        """Return whether the fill must not give way, although no client here waits for it."""
        ...

    @property
    def parked(self) -> bool:
        """Return whether the fill has nothing to fetch for now, whatever clients are here."""
        ...

    async def run(self, publish: Publish) -> None: ...

    def hurry(self) -> None: ...

    def defer(self) -> None: ...


class Flight:
    """A running fill as its clients see it; `prefetch` as long as no client has joined."""

    def __init__(self, digest: Digest, repository: Repository, *, prefetch: bool = False) -> None:
        self.digest = digest
        self.repository = (
            repository  # its upstream is asked; other repositories join with a link of their own
        )
        self.asker = b""  # whose credentials its upstream is asked with (mirror.upstream.guests.current)
        self.prefetch = prefetch
        self.demand = Demand(whole=True)
        self.on_first_client: Callable[[], object] = ignore  # called when a client joins that waits alone
        self.on_last_client: Callable[[], object] = ignore  # called when no client waits any more
        self.stop: Callable[[], object] = ignore  # called to end a fill that no client waits for
        self.fill: RunningFill | None = None  # from its turn on
        self.turn: SlotClaim | None = None
        self.kept = False  # goes on for a later client, though nothing has come yet
        self.has_bytes = False  # there was content: bytes have come
        self.gives_way = False  # is being stopped, to be resumed at its next turn
        self.error: UpstreamError | StoreError | None = None
        self._clients: list[TimeLimit] = []
        self._queued = False
        self._readable = asyncio.Event()
        self._done = asyncio.Event()
        self._claimed_or_done = asyncio.Event()
        self._content: GrowingFile | bytes | None = None

    def join(self, limit: TimeLimit) -> None:
        """Record that a client waits for the fill from now on; its `limit` stands still in the queue."""
        self._clients.append(limit)
        if self._queued:
            limit.suspend()
        if self.prefetch and not self._done.is_set():
            self.prefetch = False
            self._claimed_or_done.set()
        if len(self._clients) == 1 and not self._done.is_set():
            self.on_first_client()

    def leave(self, limit: TimeLimit) -> None:
        """Record that the client waits no longer. The fill is kept for others if the client's time was up."""
        self._clients.remove(limit)
        if self._queued:
            limit.resume()
        self.kept = self.kept or limit.expired
        if not self._clients and not self._done.is_set():
            self.on_last_client()

    @property
    def wanted(self) -> bool:
        """Return whether a client waits for the fill, or has not read all of it."""
        return bool(self._clients)

    def waits_in(self, pool: SlotPool) -> bool:
        """Return whether the fill waits for a turn of the pool."""
        return self.turn is not None and self.turn.group.pool is pool and not self.turn.granted

    @property
    def wanted_by(self) -> int:
        """Number of clients that wait for the fill, or have not read all of it."""
        return len(self._clients)

    @property
    def urgent(self) -> bool:
        """Return whether the fill must not give way to others."""
        if self.fill is not None and self.fill.parked:
            return False
        return self.wanted or (self.fill is not None and self.fill.urgent)

    @property
    def received(self) -> int:
        """Return how many bytes of a large blob are here; 0 before the first one, and for a small blob."""
        return self._content.received() if isinstance(self._content, GrowingFile) else 0

    def set_queued(self, queued: bool) -> None:
        """Stop the clients' time limits while the fill waits in the mirror's own queue."""
        if queued is not self._queued and not self._readable.is_set():
            self._queued = queued
            for limit in self._clients:
                limit.suspend() if queued else limit.resume()

    async def wait_claimed_or_done(self) -> None:
        """Wait until a client has joined, or the fill has ended."""
        await self._claimed_or_done.wait()

    async def wait_content(self) -> GrowingFile | bytes | None:
        """Wait for a file to follow, or for the whole blob; None when the blob is in the store.

        Raises the error of a fill that failed before there was content.
        """
        await self._readable.wait()
        if self._content is None and self.error is not None:
            raise self.error
        return self._content

    async def wait_done(self) -> None:
        """Wait until the fill has ended, successfully or not."""
        await self._done.wait()

    def publish(self, content: GrowingFile | bytes | None) -> None:
        """Give `content` to all that wait; None when the blob is in the store."""
        if not self._done.is_set() and not self.gives_way:
            self.set_queued(False)
            self._content, self.has_bytes = content, True
            self._readable.set()

    def withdraw(self) -> None:
        """Take the content back, which no client reads: the fill gives way to others."""
        self.gives_way = True
        self._content = None
        self._readable.clear()

    def finish(self, error: UpstreamError | StoreError | None) -> None:
        """End the flight; readers of its growing file receive `error`."""
        self.error = None if error is None else without_frames(error)
        if error is not None and isinstance(self._content, GrowingFile):
            self._content.fail(error, corrupt=isinstance(error, WrongBytes))
        self.set_queued(False)
        self._readable.set()
        self._done.set()
        self._claimed_or_done.set()

    def finish_without_content(self) -> None:
        """End the flight while no client waits: later requests look in the store again."""
        self._content = None
        self.finish(None)


class FlightTable:
    """The running flights: at most one per digest (invariant 2), owned by no client (invariant 3)."""

    def __init__(self, tasks: Tasks, metrics: Metrics) -> None:
        self._tasks = tasks
        self._metrics = metrics
        self._running: dict[Digest, Flight] = {}
        self.on_disk_error: Callable[[], object] = ignore  # called when a fill failed because of the disk
        self.on_urgency: Callable[[], object] = ignore  # called when clients have come or gone

    def get(self, digest: Digest) -> Flight | None:
        return self._running.get(digest)

    def start(self, flight: Flight, make_fill: Callable[[], RunningFill], turns: SlotGroup) -> None:
        """Start a flight, whose fill is made at its turn. Raises UpstreamError when too many flights wait."""
        if turns.pool.crowded and not turns.pool.has_room(turns, urgent=flight.wanted):
            self._make_room(turns)
        self._running[flight.digest] = flight
        flight.on_first_client = lambda: self._on_first_client(flight, turns)
        flight.on_last_client = lambda: self._on_last_client(flight, turns)
        self._claim_turn(flight, turns)
        task = self._tasks.spawn(self._run(flight, make_fill, turns), name=f"fill {flight.digest}")
        # A task that is cancelled before its first step never reaches its `finally`.
        task.add_done_callback(lambda _: self._finish(flight, SHUTTING_DOWN))
        flight.stop = task.cancel

    def cancel(self, flight: Flight) -> bool:
        """End a prefetch that no client has joined, and keep its partial; False when there is none to end."""
        if not flight.prefetch or self._running.get(flight.digest) is not flight:
            return False
        self._end(flight)
        return True

    def _claim_turn(self, flight: Flight, turns: SlotGroup) -> None:
        give_way = lambda: self._give_way(flight, turns)  # noqa: E731
        flight.turn = turns.claim(lambda: flight.urgent, give_way)
        flight.set_queued(not flight.turn.granted)

    def _make_room(self, turns: SlotGroup) -> None:
        """End a flight that waits for its turn: an abandoned one, else a late one.

        The late one is that of the client with the most. Raises UpstreamError if the client that asks has as
        many itself.
        """
        waiting = [each for each in self._running.values() if each.waits_in(turns.pool) and not each.prefetch]
        if (unwanted := next((each for each in reversed(waiting) if not each.wanted), None)) is not None:
            self._end(unwanted)
            return
        by_client: FairQueue[Flight] = FairQueue()
        for flight in waiting:
            by_client.push(flight.turn.client if flight.turn is not None else "", flight)
        last = by_client.take_for(current_client(), lambda each: each.wanted_by == 1)
        if last is None:
            raise queue_full(turns.pool.waiting)
        self._end(last, queue_full(turns.pool.waiting))

    def _end(self, flight: Flight, error: UpstreamError | None = None) -> None:
        """End a flight that no client waits for, or with an error; its partial stays."""
        del self._running[flight.digest]
        flight.gives_way = False
        if error is None:
            flight.finish_without_content()
        else:
            flight.finish(error)
        flight.stop()
        if flight.turn is not None and not flight.turn.granted:
            self._release_turn(flight)

    def _on_first_client(self, flight: Flight, turns: SlotGroup) -> None:
        if flight.fill is not None:
            flight.fill.hurry()
        turns.pool.reassign()
        self.on_urgency()

    def _on_last_client(self, flight: Flight, turns: SlotGroup) -> None:
        if self._running.get(flight.digest) is not flight:
            return
        brief = flight.fill is not None and flight.fill.brief
        if not (brief or flight.has_bytes or flight.kept or flight.gives_way):
            log.debug("fill ended, its last client has left", digest=str(flight.digest))
            self._end(flight)
            return
        if flight.fill is not None:
            flight.fill.defer()
        turns.pool.reassign()
        self.on_urgency()

    def _give_way(self, flight: Flight, turns: SlotGroup) -> None:
        """Leave the turn to a flight that a client waits for."""
        if self._running.get(flight.digest) is not flight or flight.gives_way:
            return
        if flight.fill is None:  # its task has not begun, and could not tell this from a shutdown
            asyncio.get_running_loop().call_soon(self._give_way, flight, turns)
            return
        log.debug("fill gives way to one that a client waits for", digest=str(flight.digest))
        if flight.prefetch or (flight.has_bytes and not turns.pool.crowded):
            flight.withdraw()
            flight.stop()
        else:
            self._end(flight)

    async def _run(self, flight: Flight, make_fill: Callable[[], RunningFill], turns: SlotGroup) -> None:
        error: UpstreamError | StoreError | None = SHUTTING_DOWN
        try:
            while not await self._run_turn(flight, make_fill):
                self._claim_turn(flight, turns)
            error = None
        except UpstreamError as failed:
            error = self._log_failure(flight, failed, failed.failure.value)
        except NoRoom as failed:
            log.info("blob passed through, too large for the quota", reason=str(failed))
            error = failed
        except StoreError as failed:
            error = self._log_failure(flight, failed, "lost" if isinstance(failed, PartialLost) else "disk")
        finally:
            self._finish(flight, error)

    async def _run_turn(self, flight: Flight, make_fill: Callable[[], RunningFill]) -> bool:
        """Wait for a turn, and fill; return whether the fill has ended, False if it gave way."""
        task = asyncio.current_task()
        try:
            if flight.turn is not None:
                await flight.turn.wait()
            flight.set_queued(False)
            fill = flight.fill = make_fill()
            fill.on_queue = flight.set_queued
            await fill.run(flight.publish)
        except asyncio.CancelledError:
            if not flight.gives_way or task is None or task.uncancel() > 0:
                raise
            return False
        finally:
            flight.fill = None
            flight.gives_way = False
            self._release_turn(flight)
        return True

    def _release_turn(self, flight: Flight) -> None:
        turn, flight.turn = flight.turn, None
        if turn is not None:
            turn.release()

    def _finish(self, flight: Flight, error: UpstreamError | StoreError | None) -> None:
        self._release_turn(flight)
        # Off the table before any client is notified: a client that retries then starts a new fill.
        if self._running.get(flight.digest) is flight:
            del self._running[flight.digest]
            flight.finish(error)
            if isinstance(error, StoreError) and not isinstance(error, PartialLost | NoRoom):
                self.on_disk_error()

    def _log_failure(self, flight: Flight, error: Error, reason: str) -> Error:
        about = {"digest": str(flight.digest), "repository": str(flight.repository), "reason": str(error)}
        if flight.prefetch:
            log.debug("prefetch failed", **about)
        else:
            self._metrics.fill_failures.labels(reason).inc()
            # Clients get all of the blob where only the disk fails, and the disk's own line says what to do.
            write = log.info if isinstance(error, StoreError) else log.warning
            write("fill failed", **about)
        return error
