"""The shared tier as one mirror sees it: every request has a time limit, and a failure means going on alone.

Nothing here raises for an engine that fails: callers get "not there" or "no coordination", the log, /readyz
and the metrics tell the operator. Content is addressed by digest, and what comes from the tier is verified
like anything else, so that nothing the engines answer can do more than cost bytes.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.engines import Engines
from mirror.shared.errors import ObjectMissing, TierError, TierFault
from mirror.shared.health import EngineHealth, Wait, Waits, current_waits, unlimited
from mirror.shared.interfaces import Holder, TierObject, TierRange, VerifiedContent
from mirror.shared.keys import fill_key
from mirror.shared.lease_text import new_holder
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks

T = TypeVar("T")

log = get_logger(__name__)

# Time, in seconds, after which a lease lapses that its holder does not renew: how long a dead mirror keeps
# the others from a blob, while their clients wait. Three renewals fit into it.
LEASE_SECONDS = 6.0

# Interval, in seconds, at which a bucket is probed again that could not be reached, and one that is unfit.
PROBE_SECONDS = 10.0
UNFIT_SECONDS = 300.0

OBJECTS, LEASES = "objects", "leases"

# What an engine is asked that failed, until it answers: about a blob that nobody has.
_NOTHING = Digest.of(b"registry-mirror asks whether an engine answers")


class FillClaim:
    """The lease for filling one blob, renewed until it is released."""

    def __init__(self, holder: Holder, renewing: "asyncio.Task[None]", release: Callable[[], object]) -> None:
        self.holder = holder
        self._renewing = renewing
        self._release = release

    def release(self) -> None:
        """Free the lease, in the background; once is enough."""
        self._renewing.cancel()
        release, self._release = self._release, lambda: None
        release()


class SharedTier:
    """The object store and the coordinator, with limits, health and metrics. Create with `open`."""

    def __init__(
        self,
        engines: Engines,
        limit: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit`: seconds for each small request, and for all to one engine that a client waits for."""
        self.address = ""  # of this mirror's listener for its peers
        self.on_use: Callable[[Digest], object] = ignore  # called with each blob that is read or written
        self._engines = engines
        self.limit = limit
        self._metrics = metrics
        self._tasks = Tasks()
        self._releasing: set[asyncio.Task[None]] = set()
        self._clock = clock
        # Makes the time that a client waits for the engines (`mirror.shared.health.limited`).
        self.waits = partial(Waits, limit, clock)
        self._probed = False
        self._recovering: set[EngineHealth] = set()
        self.objects = EngineHealth(f"object store {engines.name}")
        self.leases = EngineHealth("coordinator")

    def start(self) -> None:
        """Probe the bucket in the background; until that is done, the tier is not used."""
        self._tasks.spawn(self._probe_until_fit(), name="probe the shared tier")

    @property
    def usable(self) -> bool:
        """Return whether blobs may be read from the object store and written there now."""
        return self._probed and self.objects.usable

    @property
    def coordinated(self) -> bool:
        """Return whether the coordinator may be asked now."""
        return self._probed and self.leases.usable

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> "asyncio.Task[T]":
        """Run work that no client waits for. RuntimeError when the tier is closed."""
        with unlimited():
            return self._tasks.spawn(work, name=name)

    async def find(self, digest: Digest) -> TierObject | None:
        """Return what the object store has of a blob; None for nothing, and when it does not say."""
        if not self.usable:
            return None
        found = await self.ask(OBJECTS, "stat", lambda: self._engines.objects.stat(digest), None)
        if found is not None:
            self.on_use(digest)
        return found

    @asynccontextmanager
    async def open_range(self, digest: Digest, span: Span) -> AsyncGenerator[TierRange]:
        """Open a part of a blob. Raises TierError, at the first byte or later."""
        opening = self._engines.objects.open_range(digest, span)
        try:
            part = await self._within(self.limit, opening.__aenter__)
        except TierError as error:
            self._record(self.objects, "read", error)
            raise
        self._record(self.objects, "read", None)
        self.on_use(digest)
        try:
            yield TierRange(part.span, part.total, self._counted(part.chunks))
        finally:
            await opening.__aexit__(None, None, None)

    async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        received = self._metrics.shared_bytes.labels("received")
        try:
            async for chunk in chunks:
                received.inc(len(chunk))
                yield chunk
        except TierError as error:
            self._record(self.objects, "read", error)
            raise

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        """Return a whole blob of up to `limit` bytes, verified; None for none, and without an answer.

        A blob that is wrong is removed.
        """
        if not self.usable:
            return None
        data = await self.ask(OBJECTS, "read", lambda: self._whole(digest, limit), None)
        if data is None or Digest.of(data, digest.algorithm) == digest:
            return data
        log.warning("blob wrong in the shared tier, removed", digest=str(digest))
        await self.remove(digest)
        return None

    async def _whole(self, digest: Digest, limit: int) -> bytes | None:
        try:
            async with self._engines.objects.open_range(digest, Span(0, limit)) as part:
                if part.total > limit:
                    return None
                data = b"".join([chunk async for chunk in part.chunks])
        except ObjectMissing:
            return None
        self._metrics.shared_bytes.labels("received").inc(len(data))
        self.on_use(digest)
        return data

    async def publish(self, content: VerifiedContent) -> bool:
        """Store a blob; return False if that failed. Raises TierError WRONG for one that is corrupt here."""
        sent = self._metrics.shared_bytes.labels("sent")

        async def counted() -> AsyncIterator[bytes]:
            async for chunk in content.chunks():
                sent.inc(len(chunk))
                yield chunk

        try:
            await self._engines.objects.put(VerifiedContent(content.digest, content.size, counted))
        except TierError as error:
            if error.fault is TierFault.WRONG:
                raise
            self._record(self.objects, "write", error)
            return False
        self._record(self.objects, "write", None)
        return True

    async def presigned(self, digest: Digest, seconds: float) -> str | None:
        """Return a URL for the blob that is good for `seconds`; None if there is none."""
        sign = lambda: self._engines.objects.presigned(digest, seconds)  # noqa: E731
        return await self.ask(OBJECTS, "sign", sign, None)

    async def remove(self, digest: Digest) -> None:
        """Remove a blob that was found corrupt; a failure is recorded."""
        if self.usable:
            await self.ask(OBJECTS, "remove", lambda: self._engines.objects.remove(digest), None)

    async def claim(self, digest: Digest) -> FillClaim | Holder | None:
        """Claim the right to fetch a blob upstream; or return who has it, or None without a coordinator."""
        if not self.coordinated:
            return None
        key, mine = fill_key(digest), new_holder(self.address)
        leases = self._engines.leases
        held = await self.ask(LEASES, "acquire", lambda: leases.acquire(key, mine, LEASE_SECONDS), None)
        if held != mine:
            return held
        renewing = self.spawn(self._renew(key, mine), name=f"renew {key}")
        return FillClaim(mine, renewing, lambda: self._release(key, mine))

    async def holder(self, digest: Digest) -> Holder | None:
        """Return who holds the right to fetch a blob; None for nobody, and without a coordinator."""
        if not self.coordinated:
            return None
        key = fill_key(digest)
        return await self.ask(LEASES, "look", lambda: self._engines.leases.holder(key), None)

    async def ask(self, engine: str, operation: str, ask: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """Return an answer that comes within the limit; `otherwise` if none does, which is recorded.

        `engine`: OBJECTS or LEASES.

        """
        health = self.objects if engine == OBJECTS else self.leases
        waits = current_waits()
        wait = Wait(math.inf, self._clock) if waits is None else waits.of(engine)
        if (left := min(self.limit, wait.left)) <= 0:
            return otherwise
        try:
            with wait.counted():
                answer = await self._within(left, ask)
        except TierError as error:
            self._record(health, operation, error)
            return otherwise
        self._record(health, operation, None)
        return answer

    async def _within(self, seconds: float, ask: Callable[[], Awaitable[T]]) -> T:
        """Return an answer that comes within `seconds`. Raises TierError."""
        try:
            async with asyncio.timeout(seconds):
                return await ask()
        except TimeoutError:
            fault = TierFault.UNREACHABLE if seconds >= self.limit / 2 else TierFault.LATE
            raise TierError(fault, f"no answer within {seconds:.3g} s") from None

    def state(self) -> dict[str, Any]:
        """Return the state for /readyz."""
        return {
            "url": self._engines.name,
            "objects": {"usable": self.usable, "reason": self.objects.reason},
            "leases": {"usable": self.coordinated, "reason": self.leases.reason},
        }

    async def close(self) -> None:
        """Free the leases that are being released, let others lapse, and close the connections."""
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=self.limit)
        await self._tasks.close()
        with suppress(TierError):
            await self._engines.close()

    async def _renew(self, key: str, mine: Holder) -> None:
        leases = self._engines.leases
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            renew = lambda: leases.renew(key, mine, LEASE_SECONDS)  # noqa: E731
            if await self.ask(LEASES, "renew", renew, True):
                continue
            # A coordinator that was flushed or restarted has no lease at all: then it is this mirror's again.
            acquire = lambda: leases.acquire(key, mine, LEASE_SECONDS)  # noqa: E731
            if await self.ask(LEASES, "acquire", acquire, mine) != mine:
                log.info("lease of the shared tier lost, another mirror may fetch the same blob", lease=key)
                return

    def _release(self, key: str, mine: Holder) -> None:
        with suppress(RuntimeError):  # while the mirror stops, leases lapse
            release = lambda: self._engines.leases.release(key, mine)  # noqa: E731
            task = self.spawn(self.ask(LEASES, "release", release, None), name=f"release {key}")
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    def _record(self, health: EngineHealth, operation: str, error: TierError | None) -> None:
        engine = OBJECTS if health is self.objects else LEASES
        outcome = "ok" if error is None else error.fault.value
        self._metrics.shared_requests.labels(engine, operation, outcome).inc()
        if error is None or isinstance(error, ObjectMissing):
            health.record_success()
        elif error.fault is not TierFault.LATE:
            health.record_failure(str(error))
            self._recover(health)

    def _recover(self, health: EngineHealth) -> None:
        """Ask an engine that failed, in the background, until it answers."""
        if health not in self._recovering:
            self._recovering.add(health)
            with suppress(RuntimeError):  # while the mirror stops, nobody asks it again
                self.spawn(self._ask_again(health), name=f"ask again: {health.engine}")

    async def _ask_again(self, health: EngineHealth) -> None:
        engines = self._engines
        try:
            while not health.usable:
                await asyncio.sleep(health.next_pause())
                if health is self.objects:
                    await self.ask(OBJECTS, "probe", lambda: engines.objects.stat(_NOTHING), None)
                else:
                    await self.ask(LEASES, "probe", lambda: engines.leases.holder(fill_key(_NOTHING)), None)
        finally:
            self._recovering.discard(health)

    async def _probe_until_fit(self) -> None:
        pause = await self._probe()
        while pause:
            await asyncio.sleep(pause)
            pause = await self._probe()

    async def _probe(self) -> float:
        """Probe the bucket; return after how many seconds to do so again, if it is not in use then."""
        try:
            fitness = await self._engines.probe()
        except TierError as error:
            self.objects.record_failure(str(error))
            return PROBE_SECONDS
        if fitness.reads is not None:
            self.objects.record_failure(fitness.reads)
            return UNFIT_SECONDS
        self._probed = True
        self.objects.record_success()
        if fitness.leases is not None:
            self.leases.record_failure(fitness.leases)
        log.info("shared tier in use", bucket=self._engines.name)
        return 0.0
