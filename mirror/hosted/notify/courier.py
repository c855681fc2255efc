"""The courier: changes of hosted repositories go into the queue, and from there to who is to be told.

Every process that serves queues; the one that runs housekeeping sends. Each address gets its notifications in
order: one that fails is tried again after 10 s, and then less and less often, and those behind it wait.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from mirror.access.patterns import matches
from mirror.config.hosting.hosted import HostedSettings
from mirror.config.hosting.webhooks import WebhookSettings, read_secret
from mirror.hosted.notify.message import body_of, headers_of
from mirror.hosted.notify.outbox import AT_A_TIME, Outbox, OutboxFull, Queued
from mirror.hosted.registry import Change, HostedRegistry
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.errors import StoreError
from mirror.upstream.notify.webhook_client import WebhookFailed, post
from mirror.util.log import get_logger
from mirror.util.lru import LRUCache
from mirror.util.tasks import Tasks
from mirror.util.tracebacks import reason_of

log = get_logger(__name__)

# Pause after the first failure, and the longest one, in seconds; and the age at which a notification is
# dropped.
FIRST_PAUSE = 10.0
LONGEST_PAUSE = 3600.0
KEPT_SECONDS = 3 * 24 * 3600.0

# Room for tags whose pull has been told, in bytes.
TOLD_BYTES = 1024 * 1024


class Hook(Struct, frozen=True):
    """One address. `key` tells it from others in the queue."""

    key: str
    registry: str
    settings: WebhookSettings

    def wants(self, change: Change) -> bool:
        """Return whether this address gets notifications of a change."""
        mine = change.repository.upstream == self.registry and change.action in self.settings.events
        return mine and matches(change.repository.path, self.settings.repositories)


class Courier:
    """Notifications of one process. `clock`: seconds since the epoch."""

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
        self._outbox = Outbox(registry.store.folder.path)
        self._hooks = {
            hook.key: hook for each in hosted for hook in (_hook(each.name, one) for one in each.webhooks)
        }
        self._told: LRUCache[tuple[Repository, Tag, Digest], bool] = LRUCache(TOLD_BYTES)
        self._sending = False
        registry.on_change.append(self.note)
        if any("pull" in each.settings.events for each in self._hooks.values()):
            registry.content.on_pull.append(self.note_pull)

    def note(self, change: Change) -> None:
        """Queue the notifications of a change."""
        hooks = [each for each in self._hooks.values() if each.wants(change)]
        if hooks:
            self._tasks.spawn(self._queue(change, hooks), name="webhooks")

    def note_pull(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """Queue the notifications of the first pull of a tag since its push."""
        key, change = (repository, tag, digest), Change("pull", repository, digest, tag.name)
        hooks = [each for each in self._hooks.values() if each.wants(change)]
        if hooks and self._told.get(key) is None:
            self._told.put(key, True, len(str(repository)))
            self._tasks.spawn(self._queue_first(tag, change, hooks), name="webhooks")

    def start(self) -> None:
        """Send what is due, in the background."""
        if not self._sending:
            self._sending = True
            self._tasks.spawn(self._run(), name="webhooks")

    async def send_due(self) -> None:
        """Send what is due now. Raises StoreError."""
        waiting: set[str] = set()  # addresses whose next notification is not due
        names = await self._store.read(self._outbox.names)
        for start in range(0, len(names), AT_A_TIME):
            if waiting and len(waiting) == len(self._hooks):
                return
            for name in names[start : start + AT_A_TIME]:
                await self._send(name, waiting)

    async def _run(self) -> None:
        try:
            await self.send_due()
        except (StoreError, OSError) as error:
            log.warning("webhooks not sent", reason=reason_of(error))
        finally:
            self._sending = False

    async def _queue_first(self, tag: Tag, change: Change, hooks: Sequence[Hook]) -> None:
        index = self._store.index
        try:
            first = await self._store.read(index.note_pull, change.repository, tag, change.digest)
        except (StoreError, OSError) as error:
            log.warning("first pull not told to webhooks", reason=reason_of(error))
            return
        if first:
            await self._queue(change, hooks)

    async def _queue(self, change: Change, hooks: Sequence[Hook]) -> None:
        now = self._clock()
        for hook in hooks:
            try:
                message = Queued(hook.key, body_of(change, now), now)
                await self._store.read(self._outbox.add, message)
            except (OutboxFull, StoreError, OSError) as error:
                log.error("notification lost", url=hook.settings.url, reason=reason_of(error))

    async def _send(self, name: str, waiting: set[str]) -> None:
        message = await self._store.read(self._outbox.read, name)
        if message is None or message.hook in waiting:
            return
        hook, now = self._hooks.get(message.hook), self._clock()
        if hook is None:  # the configuration has lost it
            await self._store.read(self._outbox.remove, name)
            return
        if message.due > now:
            waiting.add(message.hook)
            return
        try:
            secret = await self._store.read(read_secret, hook.settings.secret_file)
            await post(hook.settings.url, headers_of(name, message.body, secret, now), message.body)
        except (WebhookFailed, StoreError, OSError) as failed:
            waiting.add(message.hook)
            await self._put_off(name, message, hook, reason_of(failed))
        else:
            self._metrics.webhooks.labels(hook.registry, "sent").inc()
            await self._store.read(self._outbox.remove, name)

    async def _put_off(self, name: str, message: Queued, hook: Hook, reason: str) -> None:
        now, url = self._clock(), hook.settings.url
        dropped = now - message.queued > KEPT_SECONDS
        self._metrics.webhooks.labels(hook.registry, "dropped" if dropped else "failed").inc()
        if dropped:
            log.error("notification dropped after three days", url=url, reason=reason)
            await self._store.read(self._outbox.remove, name)
            return
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(message.attempts, 20))
        if not message.attempts:
            log.warning("notification not taken, trying again", url=url, reason=reason)
        later = replace(message, attempts=message.attempts + 1, due=now + pause)
        await self._store.read(self._outbox.put, name, later)


def _hook(registry: str, settings: WebhookSettings) -> Hook:
    key = hashlib.sha256(f"{registry} {settings.url}".encode()).hexdigest()[:16]
    return Hook(key, registry, settings)
