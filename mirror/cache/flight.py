"""Flights: whoever asks for a digest that is being filled joins the one fill there is."""

import asyncio
from typing import Protocol, TypeVar

from mirror.cache.fill import Opened
from mirror.log import get_logger
from mirror.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.store.growing import GrowingFile
from mirror.tasks import Tasks
from mirror.upstream.errors import UpstreamError

log = get_logger(__name__)

Error = TypeVar("Error", UpstreamError, StoreError)

SHUTTING_DOWN = StoreError("the mirror is shutting down")


class Filling(Protocol):
    """What brings a blob: a Fill, or a SmallFill."""

    async def run(self, opened: Opened) -> None: ...

    def hurry(self) -> None: ...


class Flight:
    """A running fill as those see it who wait for it."""

    def __init__(self, digest: Digest, repository: Repository) -> None:
        self.digest = digest
        self.repository = repository  # whose upstream is asked; others join with a link of their own
        self._boarding = asyncio.Event()
        self._landed = asyncio.Event()
        self._brought: GrowingFile | bytes | None = None
        self._error: UpstreamError | StoreError | None = None

    async def board(self) -> GrowingFile | bytes | None:
        """Wait until there is a file to follow, or all of the blob; None when that is in the store.

        Raises what the fill failed with before there was one.
        """
        await self._boarding.wait()
        if self._brought is None and self._error is not None:
            raise self._error
        return self._brought

    async def landed(self) -> None:
        """Wait until the fill is over, well or not."""
        await self._landed.wait()

    def open(self, brought: GrowingFile | bytes | None) -> None:
        self._brought = brought
        self._boarding.set()

    def land(self, error: UpstreamError | StoreError | None) -> None:
        self._error = error
        if error is not None and isinstance(self._brought, GrowingFile):
            self._brought.fail(error)
        self._boarding.set()
        self._landed.set()


class Flights:
    """At most one flight per digest (invariant 2), owned by no client (invariant 3)."""

    def __init__(self, tasks: Tasks, metrics: Metrics) -> None:
        self._tasks = tasks
        self._metrics = metrics
        self._running: dict[Digest, Flight] = {}

    def get(self, digest: Digest) -> Flight | None:
        return self._running.get(digest)

    def start(self, flight: Flight, fill: Filling) -> None:
        self._running[flight.digest] = flight
        task = self._tasks.spawn(self._fly(flight, fill), name=f"fill {flight.digest}")
        # A task that is cancelled before its first step never comes to its own end.
        task.add_done_callback(lambda _: self._land(flight, SHUTTING_DOWN))

    async def _fly(self, flight: Flight, fill: Filling) -> None:
        error: UpstreamError | StoreError | None = SHUTTING_DOWN
        try:
            await fill.run(flight.open)
            error = None
        except UpstreamError as failed:
            error = self._failed(flight, failed, failed.failure.value)
        except StoreError as failed:
            error = self._failed(flight, failed, "disk")
        finally:
            self._land(flight, error)

    def _land(self, flight: Flight, error: UpstreamError | StoreError | None) -> None:
        # Off the table before anybody hears of it: whoever comes back then starts a new fill.
        if self._running.get(flight.digest) is flight:
            del self._running[flight.digest]
            flight.land(error)

    def _failed(self, flight: Flight, error: Error, reason: str) -> Error:
        self._metrics.fill_failures.labels(reason).inc()
        log.warning(
            "fill failed", digest=str(flight.digest), repository=str(flight.repository), reason=str(error)
        )
        return error
