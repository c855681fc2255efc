"""Flights: whoever asks for a digest that is being filled joins the one fill there is."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import PartialLost, ShuttingDown, StoreError
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.fill import Opened
from mirror.upstream.errors import UpstreamError, WrongBytes
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks

log = get_logger(__name__)

Error = TypeVar("Error", UpstreamError, StoreError)

SHUTTING_DOWN = ShuttingDown("the mirror is shutting down")


class RunningFill(Protocol):
    """What brings a blob: a Fill, or a SmallFill."""

    async def run(self, opened: Opened) -> None: ...

    def hurry(self) -> None: ...


class Flight:
    """A running fill as those see it who wait for it; as long as it is `ahead`, nobody does."""

    def __init__(self, digest: Digest, repository: Repository, *, ahead: bool = False) -> None:
        self.digest = digest
        self.repository = repository  # whose upstream is asked; others join with a link of their own
        self.ahead = ahead
        self.hurry: Callable[[], object] = bool  # called when the first one begins to wait
        self.stop: Callable[[], object] = bool  # called when it is to end before anybody does
        self.error: UpstreamError | StoreError | None = None
        self._boarding = asyncio.Event()
        self._landed = asyncio.Event()
        self._settled = asyncio.Event()
        self._brought: GrowingFile | bytes | None = None

    def want(self) -> None:
        """A client waits for it from now on."""
        if self.ahead and not self._landed.is_set():
            self.ahead = False
            self.hurry()
            self._settled.set()

    async def settled(self) -> None:
        """Wait until somebody wants it, or it is over."""
        await self._settled.wait()

    async def board(self) -> GrowingFile | bytes | None:
        """Wait until there is a file to follow, or all of the blob; None when that is in the store.

        Raises what the fill failed with before there was one.
        """
        await self._boarding.wait()
        if self._brought is None and self.error is not None:
            raise self.error
        return self._brought

    async def landed(self) -> None:
        """Wait until the fill is over, well or not."""
        await self._landed.wait()

    def open(self, brought: GrowingFile | bytes | None) -> None:
        if not self._landed.is_set():
            self._brought = brought
            self._boarding.set()

    def land(self, error: UpstreamError | StoreError | None) -> None:
        self.error = error
        if error is not None and isinstance(self._brought, GrowingFile):
            self._brought.fail(error, corrupt=isinstance(error, WrongBytes))
        self._boarding.set()
        self._landed.set()
        self._settled.set()

    def abandon(self) -> None:
        """It ends before anybody was on it; whoever comes now looks again from the start."""
        self._brought = None
        self.land(None)


class FlightTable:
    """At most one flight per digest (invariant 2), owned by no client (invariant 3)."""

    def __init__(self, tasks: Tasks, metrics: Metrics) -> None:
        self._tasks = tasks
        self._metrics = metrics
        self._running: dict[Digest, Flight] = {}
        self.on_disk_trouble: Callable[[], object] = bool  # called when a fill failed for the disk's sake

    def get(self, digest: Digest) -> Flight | None:
        return self._running.get(digest)

    def start(self, flight: Flight, fill: RunningFill) -> None:
        self._running[flight.digest] = flight
        flight.hurry = fill.hurry
        task = self._tasks.spawn(self._fly(flight, fill), name=f"fill {flight.digest}")
        # A task that is cancelled before its first step never comes to its own end.
        task.add_done_callback(lambda _: self._land(flight, SHUTTING_DOWN))
        flight.stop = task.cancel

    def cancel(self, flight: Flight) -> bool:
        """End a fill that nobody waits for, what it has brought is kept; False when there is none to end."""
        if not flight.ahead or self._running.get(flight.digest) is not flight:
            return False
        del self._running[flight.digest]
        flight.abandon()
        flight.stop()
        return True

    async def _fly(self, flight: Flight, fill: RunningFill) -> None:
        error: UpstreamError | StoreError | None = SHUTTING_DOWN
        try:
            await fill.run(flight.open)
            error = None
        except UpstreamError as failed:
            error = self._failed(flight, failed, failed.failure.value)
        except StoreError as failed:
            error = self._failed(flight, failed, "lost" if isinstance(failed, PartialLost) else "disk")
        finally:
            self._land(flight, error)

    def _land(self, flight: Flight, error: UpstreamError | StoreError | None) -> None:
        # Off the table before anybody hears of it: whoever comes back then starts a new fill.
        if self._running.get(flight.digest) is flight:
            del self._running[flight.digest]
            flight.land(error)
            if isinstance(error, StoreError) and not isinstance(error, PartialLost):
                self.on_disk_trouble()

    def _failed(self, flight: Flight, error: Error, reason: str) -> Error:
        about = {"digest": str(flight.digest), "repository": str(flight.repository), "reason": str(error)}
        if flight.ahead:
            log.debug("fetching ahead failed", **about)
        else:
            self._metrics.fill_failures.labels(reason).inc()
            log.warning("fill failed", **about)
        return error
