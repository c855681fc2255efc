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
from functools import partial
from typing import TypeVar

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import NoRoom, PartialLost, ShuttingDown, StoreError
from mirror.store.metadata.index import Link
from mirror.transfer.context import LargeFill, TransferContext
from mirror.transfer.fill import Fill
from mirror.transfer.small_fill import SmallFill, is_small
from mirror.transfer.transfer import Phase, Transfer
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.guests.current import asker
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.callbacks import ignore
from mirror.util.fairness.budget import current_budget
from mirror.util.fairness.client import current_client
from mirror.util.fairness.fair_queue import FairQueue
from mirror.util.log import get_logger
from mirror.util.slots import SlotClaim, SlotGroup, SlotPool
from mirror.util.time_limit import TimeLimit
from mirror.util.tracing.spans import begin_fill, enter_fill, join_fill

log = get_logger(__name__)

Error = TypeVar("Error", UpstreamError, StoreError)

SHUTTING_DOWN = ShuttingDown("the mirror is shutting down")

# Retry-After, in seconds, for a request that found the queue full: downloads end all the time.
QUEUE_RETRY_AFTER = 10.0


def queue_full(waiting: int) -> UpstreamError:
    """Return the error of a request that is refused because too many downloads wait in this mirror."""
    message = f"this mirror is busy: {waiting} downloads wait for a connection; try again in a few seconds"
    return UpstreamError(Failure.RATE_LIMITED, message, retry_after=QUEUE_RETRY_AFTER)


class Flight(Transfer):
    """A transfer as its clients share it, with its turn; `prefetch` as long as no client has joined."""

    def __init__(
        self, digest: Digest, repository: Repository, link: Link | None = None, *, prefetch: bool = False
    ) -> None:
        super().__init__(digest, repository, link)
        self.asker = asker()  # whose credentials its upstream is asked with
        self.prefetch = prefetch
        self.turn: SlotClaim | None = None
        about: dict[str, str | bool] = {
            "registry_mirror.upstream": repository.upstream,
            "registry_mirror.repository": repository.path,
            "registry_mirror.digest": str(digest),
            "registry_mirror.prefetch": prefetch,
        }
        self.span = begin_fill(about)
        self.kept = False  # goes on for a later client, though nothing has come yet
        self.task: asyncio.Task[None] | None = None
        self._claimed_or_done = asyncio.Event()

    def join(self, limit: TimeLimit) -> bool:
        """Record that a client waits from now on; its `limit` stands still in the queue.

        Returns whether it is the only one.
        """
        self.clients.add(limit)
        join_fill(self.span)
        self.asked_for = True
        if self.prefetch and not self.done:
            self.prefetch = False
            self._claimed_or_done.set()
        return len(self.clients) == 1 and not self.done

    def leave(self, limit: TimeLimit) -> bool:
        """Record that the client waits no longer; return whether it was the last one of a fill that runs.

        The fill is kept for others if the client's time was up.
        """
        self.clients.remove(limit)
        self.kept = self.kept or limit.expired
        return not self.clients and not self.done

    def is_urgent(self) -> bool:
        """Return whether the fill must not give way to others.

        Without clients here, that is while it is kept, or while a client waits in another process.
        """
        must_go_on = self.phase is Phase.KEEPING or (self.phase is Phase.DOWNLOADING and self.urgent)
        return not self.parked and (bool(self.clients) or must_go_on)

    async def wait_claimed_or_done(self) -> None:
        """Wait until a client has joined, or the fill has ended."""
        await self._claimed_or_done.wait()

    def finish(self, error: UpstreamError | StoreError | None) -> None:
        """End the flight as a transfer ends, and tell who waits for a client."""
        super().finish(error)
        self._claimed_or_done.set()
        span, self.span = self.span, None
        if span is not None:
            received = {"registry_mirror.bytes": self.progress.received}
            span.end(received, None if error is None else type(error).__name__)


class FlightTable:
    """The running flights: at most one per digest (invariant 2), owned by no client (invariant 3)."""

    def __init__(self, context: TransferContext, upstreams: UpstreamSet) -> None:
        self._context = context
        self._tasks = context.tasks
        self._metrics = context.metrics
        self._upstreams = upstreams
        connections = context.settings.connections
        self._turns = upstreams.blob_turns(connections)
        # Apart from large fills: a config does not wait behind the layers of other images.
        self._small_turns = upstreams.turns(connections)
        self._running: dict[Digest, Flight] = {}
        self.on_disk_error: Callable[[], object] = ignore  # called when a fill failed because of the disk

    def get(self, digest: Digest) -> Flight | None:
        return self._running.get(digest)

    def running(self) -> list[Flight]:
        """Return the flights that run now, or wait for their turn."""
        return list(self._running.values())

    def start(self, flight: Flight) -> None:
        """Start a flight, whose fill is made at its turn. Raises UpstreamError when too many flights wait."""
        turns = self._turns_of(flight)
        if turns.pool.crowded and not turns.pool.has_room(turns, urgent=bool(flight.clients)):
            self._make_room(turns)
        self._running[flight.digest] = flight
        self._claim_turn(flight)
        flight.task = self._tasks.spawn(self._run(flight), name=f"fill {flight.digest}")
        # A task that is cancelled before its first step never reaches its `finally`.
        flight.task.add_done_callback(lambda _: self._finish(flight, SHUTTING_DOWN))

    def join(self, flight: Flight, limit: TimeLimit) -> None:
        """Let a client wait for a running flight, or one that is about to start."""
        if flight.join(limit) and self._running.get(flight.digest) is flight:
            if flight.phase is not Phase.WAITING:
                flight.hurry()
            self._reassign(flight)

    def leave(self, flight: Flight, limit: TimeLimit) -> None:
        """Let a client go; without any the fill ends, or goes on behind the others."""
        if flight.leave(limit):
            self._on_last_client(flight)

    def take_absent(self, repository: Repository, digest: Digest) -> Link | None:
        """Return the link of a blob that was missing when its manifest came, if its fill begins at once.

        Another process may have brought it since: no fill that waits, or is refused, begins on trust.
        """
        store = self._context.store
        link = store.content.take_absent(repository, digest)
        if link is None or current_budget() is not None or not store.room.is_writable:
            return None
        return None if self._turns_for(repository, link).saturated else link

    def _turns_of(self, flight: Flight) -> SlotGroup:
        return self._turns_for(flight.repository, flight.link)

    def _turns_for(self, repository: Repository, link: Link | None) -> SlotGroup:
        return (self._small_turns if is_small(link) else self._turns)[repository.upstream]

    def _reassign(self, flight: Flight) -> None:
        """Give turns and connections to who is urgent now: clients have come or gone."""
        self._turns_of(flight).pool.reassign()
        self._upstreams.slots.reassign()

    def _make_fill(self, flight: Flight) -> LargeFill | SmallFill:
        upstream = self._upstreams[flight.repository.upstream]
        if flight.link is not None and is_small(flight.link):
            return SmallFill(self._context, upstream, flight, flight.link)
        if self._context.shared_fills is not None:
            return self._context.shared_fills.fill(upstream, flight)
        return Fill(self._context, upstream, flight)

    def cancel(self, flight: Flight) -> bool:
        """End a prefetch that no client has joined, and keep its partial; False when there is none to end."""
        if not flight.prefetch or self._running.get(flight.digest) is not flight:
            return False
        self._end(flight)
        return True

    def _claim_turn(self, flight: Flight) -> None:
        flight.turn = self._turns_of(flight).claim(flight.is_urgent, partial(self._give_way, flight))
        flight.clients.set_queued(not flight.turn.granted)

    def _make_room(self, turns: SlotGroup) -> None:
        """End a flight that waits for its turn: an abandoned one, else a late one.

        The late one is that of the client with the most. Raises UpstreamError if the client that asks has as
        many itself.
        """
        waiting = [
            each for each in self._running.values() if _waits_in(turns.pool, each) and not each.prefetch
        ]
        if (unwanted := next((each for each in reversed(waiting) if not each.clients), None)) is not None:
            self._end(unwanted)
            return
        by_client: FairQueue[Flight] = FairQueue()
        for flight in waiting:
            by_client.push(flight.turn.client if flight.turn is not None else "", flight)
        last = by_client.take_for(current_client(), lambda each: len(each.clients) == 1)
        if last is None:
            raise queue_full(turns.pool.waiting)
        self._end(last, queue_full(turns.pool.waiting))

    def _end(self, flight: Flight, error: UpstreamError | None = None) -> None:
        """End a flight that no client waits for, or with an error; its partial stays."""
        del self._running[flight.digest]
        if error is None:
            flight.withdraw()  # later requests look in the store again
        flight.gives_way = False
        flight.finish(error)
        _stop(flight)
        if flight.turn is not None and not flight.turn.granted:
            self._release_turn(flight)

    def _on_last_client(self, flight: Flight) -> None:
        if self._running.get(flight.digest) is not flight:
            return
        if not (flight.brief or flight.has_bytes or flight.kept or flight.gives_way):
            log.debug("fill ended, its last client has left", digest=str(flight.digest))
            self._end(flight)
            return
        flight.defer()
        self._reassign(flight)

    def _give_way(self, flight: Flight) -> None:
        """Leave the turn to a flight that a client waits for."""
        if self._running.get(flight.digest) is not flight or flight.gives_way:
            return
        if flight.phase is Phase.WAITING:  # its task has not begun, and could not tell this from a shutdown
            asyncio.get_running_loop().call_soon(self._give_way, flight)
            return
        log.debug("fill gives way to one that a client waits for", digest=str(flight.digest))
        if flight.prefetch or (flight.has_bytes and not self._turns_of(flight).pool.crowded):
            flight.withdraw()
            _stop(flight)
        else:
            self._end(flight)

    async def _run(self, flight: Flight) -> None:
        error: UpstreamError | StoreError | None = SHUTTING_DOWN
        enter_fill(flight.span)
        try:
            while not await self._run_turn(flight):
                self._claim_turn(flight)
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

    async def _run_turn(self, flight: Flight) -> bool:
        """Wait for a turn, and fill; return whether the fill has ended, False if it gave way."""
        task = asyncio.current_task()
        try:
            if flight.turn is not None:
                await flight.turn.wait()
            flight.clients.set_queued(False)
            flight.begin()
            await self._make_fill(flight).run()
        except asyncio.CancelledError:
            if not flight.gives_way or task is None or task.uncancel() > 0:
                raise
            return False
        finally:
            flight.phase, flight.parked, flight.brief, flight.gives_way = Phase.WAITING, False, False, False
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


def _waits_in(pool: SlotPool, flight: Flight) -> bool:
    """Return whether a fill waits for a turn of the pool."""
    return flight.turn is not None and flight.turn.group.pool is pool and not flight.turn.granted


def _stop(flight: Flight) -> None:
    """End the task of a fill."""
    if flight.task is not None:
        flight.task.cancel()
