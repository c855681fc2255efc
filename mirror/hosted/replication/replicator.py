"""The replicator: what clients push or delete is queued on the disk, and brought to other registries.

Every process that serves queues; the one that runs housekeeping sends, to each target one image at a time. A
target that is down rests for 10 s, and then for pauses that double. What a target refuses waits by itself,
and others go on, until so many are refused that the target itself is taken for the reason. What has failed
before comes last: an image on which the target breaks down each time keeps no others back.
"""

import time
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from mirror.config.hosting.hosted import HostedSettings
from mirror.hosted.copying.places import CopyFailed
from mirror.hosted.registry import Change, HostedRegistry
from mirror.hosted.replication.marker import is_replica
from mirror.hosted.replication.queue import ReplicaEntry, ReplicationQueueFull
from mirror.hosted.replication.target import ReplicaTarget
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.errors import StoreError
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.pushing.push_client import PushClient
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks
from mirror.util.tracebacks import reason_of

log = get_logger(__name__)

# Pause after the first failure, and the longest one, in seconds.
FIRST_PAUSE = 10.0
LONGEST_PAUSE = 3600.0

# Time, in seconds, that an entry waits at least: it is queued before its push is done.
SETTLING = 5.0

# Refusals one after another by which the target itself is taken for the reason.
MOST_REFUSALS = 3

# Time after which an image that cannot be read here is given up, in seconds.
KEPT_SECONDS = 3 * 24 * 3600.0


class Replicator:
    """Replication of one process. `clock`: seconds since the epoch."""

    def __init__(
        self,
        registry: HostedRegistry,
        hosted: Iterable[HostedSettings],
        tasks: Tasks,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = registry.store
        self._tasks = tasks
        self._metrics = metrics
        self._clock = clock
        folder = registry.store.folder
        self.targets = [ReplicaTarget(each.name, one, folder) for each in hosted for one in each.mirror_to]
        self._resting: dict[str, tuple[float, float]] = {}  # until when, and the last pause
        self._running: set[str] = set()
        registry.before_change.append(self.announce)
        registry.on_change.append(self.note)

    async def announce(self, repository: Repository, references: Sequence[Tag | Digest], action: str) -> None:
        """Queue what is about to change: a crash between a push and its note loses nothing then."""
        if not is_replica():
            await self._queue(repository, [str(each) for each in references], action)

    def note(self, change: Change) -> None:
        """Queue what has changed, in the background."""
        if not is_replica() and any(each.wants(change.repository) for each in self.targets):
            reference = change.tag or str(change.digest)
            self._tasks.spawn(self._queue(change.repository, [reference], change.action), name="replication")

    def start(self) -> None:
        """Send what is due, in the background."""
        for target in self.targets:
            if target.key not in self._running:
                self._running.add(target.key)
                self._tasks.spawn(self._run(target), name="replication")

    async def send_due(self) -> None:
        """Send what is due now, to all targets. Raises StoreError."""
        for target in self.targets:
            await self._send_all(target)

    async def _run(self, target: ReplicaTarget) -> None:
        try:
            await self._send_all(target)
        except (StoreError, OSError) as error:
            log.warning("replication stopped for now", url=target.url, reason=reason_of(error))
        finally:
            self._running.discard(target.key)

    async def _queue(self, repository: Repository, references: Sequence[str], action: str) -> None:
        now = self._clock()
        for target in self.targets:
            if not target.wants(repository):
                continue
            try:
                for each in references:
                    deletes = action == "delete"
                    entry = ReplicaEntry(repository.path, each, now, now + SETTLING, deletes=deletes)
                    await self._store.read(target.queue.add, entry)
            except (ReplicationQueueFull, StoreError, OSError) as error:
                reason = "the queue is full" if isinstance(error, ReplicationQueueFull) else reason_of(error)
                log.error("push not queued for replication", url=target.url, reason=reason)

    async def _send_all(self, target: ReplicaTarget) -> None:
        now = self._clock()
        if self._resting.get(target.key, (0.0, 0.0))[0] > now:
            return
        entries = await self._store.read(target.queue.entries)
        self._metrics.replication_waiting.labels(target.registry, target.url).set(len(entries))
        due = sorted((each for each in entries if each.due <= now), key=lambda each: each.attempts)
        if not due:
            return
        client, refusals = target.client(self._metrics, time.monotonic), 0
        try:
            for entry in due:
                failed = await self._send(target, client, entry)
                refusals = 0 if failed is None else refusals + 1
                if failed is not None and (failed.temporary or refusals >= MOST_REFUSALS):
                    self._rest(target, failed)
                    return
                if failed is None:
                    self._go_on(target)
        finally:
            await client.close()
            waiting = await self._store.read(target.queue.count)
            self._metrics.replication_waiting.labels(target.registry, target.url).set(waiting)

    async def _send(
        self, target: ReplicaTarget, client: PushClient, entry: ReplicaEntry
    ) -> UpstreamError | None:
        """Carry out an entry; return the failure if the target is the reason of one."""
        await self._store.read(target.queue.begin, entry)
        try:
            done = await target.bring(client, entry)
        except UpstreamError as error:
            hopeless = error.failure in (Failure.INVALID, Failure.NOT_FOUND)
            await self._put_off(target, entry, error.message, hopeless=hopeless)
            return error
        except CopyFailed as error:
            await self._put_off(target, entry, str(error), hopeless=True)
            return None
        except OSError as error:  # of one file; where the whole disk fails, the queue does, too
            await self._put_off(target, entry, reason_of(error), hopeless=False)
            return None
        await self._store.read(target.queue.finish, entry)
        self._count(target, "sent" if done else "present")
        return None

    async def _put_off(
        self, target: ReplicaTarget, entry: ReplicaEntry, reason: str, *, hopeless: bool
    ) -> None:
        """Try an entry again later; drop one after three days if it is the entry that is wrong."""
        if hopeless and self._clock() - entry.queued > KEPT_SECONDS:
            log.error("image not replicated, given up", url=target.url, **_named(entry), reason=reason)
            self._count(target, "dropped")
            await self._store.read(target.queue.finish, entry)
            return
        if not entry.attempts:
            log.warning("image not replicated, trying again", url=target.url, **_named(entry), reason=reason)
        self._count(target, "failed")
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(entry.attempts, 20))
        due, attempts = self._clock() + pause, entry.attempts + 1
        later = replace(entry, due=due, attempts=attempts, reason=reason[:500])
        await self._store.read(target.queue.put_off, entry, later)

    def _rest(self, target: ReplicaTarget, error: UpstreamError) -> None:
        """Let a target rest for a while."""
        last = self._resting.get(target.key, (0.0, 0.0))[1]
        pause = max(min(LONGEST_PAUSE, max(FIRST_PAUSE, last * 2)), error.retry_after or 0.0)
        if not last:
            log.warning("replication rests", url=target.url, seconds=round(pause), reason=error.message)
        self._resting[target.key] = (self._clock() + pause, pause)

    def _go_on(self, target: ReplicaTarget) -> None:
        if self._resting.pop(target.key, None) is not None:
            log.info("replication goes on", url=target.url)

    def _count(self, target: ReplicaTarget, outcome: str) -> None:
        self._metrics.replicated.labels(target.registry, target.url, outcome).inc()


def _named(entry: ReplicaEntry) -> dict[str, str]:
    return {"repository": entry.repository, "reference": entry.reference}
