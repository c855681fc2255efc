"""Flights: single-flight for fills. Requests for a digest that is being filled join the running fill."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import NoRoom, PartialLost, ShuttingDown, StoreError
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.fill import Publish
from mirror.upstream.errors import UpstreamError, WrongBytes
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks
from mirror.util.tracebacks import without_frames

log = get_logger(__name__)

Error = TypeVar("Error", UpstreamError, StoreError)

SHUTTING_DOWN = ShuttingDown("the mirror is shutting down")


class RunningFill(Protocol):
    """The work behind a flight: a Fill, or a SmallFill."""

    async def run(self, publish: Publish) -> None: ...

    def hurry(self) -> None: ...


class Flight:
    """A running fill as its clients see it; `prefetch` as long as no client has joined."""

    def __init__(self, digest: Digest, repository: Repository, *, prefetch: bool = False) -> None:
        self.digest = digest
        self.repository = (
            repository  # its upstream is asked; other repositories join with a link of their own
        )
        self.prefetch = prefetch
        self.on_first_client: Callable[[], object] = ignore  # called when a client joins a prefetch
        self.stop: Callable[[], object] = ignore  # called to end a prefetch that no client has joined
        self.error: UpstreamError | StoreError | None = None
        self._readable = asyncio.Event()
        self._done = asyncio.Event()
        self._claimed_or_done = asyncio.Event()
        self._content: GrowingFile | bytes | None = None

    def join(self) -> None:
        """Record that a client waits for the fill from now on."""
        if self.prefetch and not self._done.is_set():
            self.prefetch = False
            self.on_first_client()
            self._claimed_or_done.set()

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
        if not self._done.is_set():
            self._content = content
            self._readable.set()

    def finish(self, error: UpstreamError | StoreError | None) -> None:
        """End the flight; readers of its growing file receive `error`."""
        self.error = None if error is None else without_frames(error)
        if error is not None and isinstance(self._content, GrowingFile):
            self._content.fail(error, corrupt=isinstance(error, WrongBytes))
        self._readable.set()
        self._done.set()
        self._claimed_or_done.set()

    def finish_without_content(self) -> None:
        """End the flight before any client has joined: later requests look in the store again."""
        self._content = None
        self.finish(None)


class FlightTable:
    """The running flights: at most one per digest (invariant 2), owned by no client (invariant 3)."""

    def __init__(self, tasks: Tasks, metrics: Metrics) -> None:
        self._tasks = tasks
        self._metrics = metrics
        self._running: dict[Digest, Flight] = {}
        self.on_disk_error: Callable[[], object] = ignore  # called when a fill failed because of the disk

    def get(self, digest: Digest) -> Flight | None:
        return self._running.get(digest)

    def start(self, flight: Flight, fill: RunningFill) -> None:
        self._running[flight.digest] = flight
        flight.on_first_client = fill.hurry
        task = self._tasks.spawn(self._run(flight, fill), name=f"fill {flight.digest}")
        # A task that is cancelled before its first step never reaches its `finally`.
        task.add_done_callback(lambda _: self._finish(flight, SHUTTING_DOWN))
        flight.stop = task.cancel

    def cancel(self, flight: Flight) -> bool:
        """End a prefetch that no client has joined, and keep its partial; False when there is none to end."""
        if not flight.prefetch or self._running.get(flight.digest) is not flight:
            return False
        del self._running[flight.digest]
        flight.finish_without_content()
        flight.stop()
        return True

    async def _run(self, flight: Flight, fill: RunningFill) -> None:
        error: UpstreamError | StoreError | None = SHUTTING_DOWN
        try:
            await fill.run(flight.publish)
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

    def _finish(self, flight: Flight, error: UpstreamError | StoreError | None) -> None:
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
            log.warning("fill failed", **about)
        return error
