"""One target of replication: what goes there, and how one entry of its queue is carried out."""

import hashlib
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from mirror.access.patterns import matches
from mirror.config.endpoints import UpstreamSettings
from mirror.config.hosting.hosted import HostedSettings
from mirror.config.hosting.replicas import ReplicaSettings
from mirror.hosted.copying.copier import Copier
from mirror.hosted.copying.folder_ends import FolderSource
from mirror.hosted.copying.registry_ends import RegistryTarget
from mirror.hosted.replication.marker import HEADER
from mirror.hosted.replication.queue import ReplicaEntry, ReplicationQueue, ReplicationQueueFull
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.upstream.pushing.push_client import PushClient

# Blobs whose place at the target is remembered within one run, so that they are mounted.
MOST_MOUNTS = 10_000


def queue_deletions(
    folder: CacheDirectory,
    hosted: Iterable[HostedSettings],
    repository: Repository,
    references: Iterable[Tag | Digest],
) -> None:
    """Queue what a command has removed from a repository. Raises OSError."""
    for settings in hosted:
        if settings.name == repository.upstream and settings.mirror_to:
            for each in references:
                queue_change(folder, settings, repository, each, deletes=True)


def queue_change(
    folder: CacheDirectory,
    settings: HostedSettings,
    repository: Repository,
    reference: Tag | Digest,
    *,
    deletes: bool = False,
) -> None:
    """Queue a change that no client made for all targets of a registry. Raises OSError."""
    now = time.time()
    for each in settings.mirror_to:
        target = ReplicaTarget(settings.name, each, folder)
        if target.wants(repository):
            with suppress(ReplicationQueueFull):
                target.queue.add(ReplicaEntry(repository.path, str(reference), now, deletes=deletes))


class ReplicaTarget:
    """A registry that gets what is pushed to a hosted one. `key` tells it from others in the queue."""

    def __init__(self, registry: str, settings: ReplicaSettings, folder: CacheDirectory) -> None:
        self.registry = registry
        self.settings = settings
        self.url = settings.url
        self.key = hashlib.sha256(f"{registry} {settings.url} {settings.prefix}".encode()).hexdigest()[:16]
        self.queue = ReplicationQueue(folder.path, self.key)
        self._folder = folder
        self._mounts: dict[Digest, str] = {}

    def wants(self, repository: Repository) -> bool:
        """Return whether a repository goes to this target."""
        return repository.upstream == self.registry and matches(repository.path, self.settings.repositories)

    def client(self, metrics: Metrics, clock: Callable[[], float]) -> PushClient:
        """Return a client, to be closed."""
        host = self.url.partition("://")[2].partition("/")[0]
        endpoint = UpstreamSettings(name=host, **self.settings.endpoint())
        self._mounts.clear()
        return PushClient(endpoint, metrics, clock, headers={HEADER: "1"})

    async def bring(self, client: PushClient, entry: ReplicaEntry) -> bool:
        """Bring the target to what is here of an entry; return whether anything was to be done.

        Raises UpstreamError, CopyFailed and StoreError.
        """
        repository = Repository(self.registry, entry.repository)
        prefix = self.settings.prefix
        path = f"{prefix}/{entry.repository}" if prefix else entry.repository
        source = FolderSource(self._folder, repository)
        by_digest = ":" in entry.reference
        reference = Digest.parse(entry.reference) if by_digest else Tag.parse(entry.reference)
        digest = reference if isinstance(reference, Digest) else await source.tagged(reference)
        if digest is None or await source.manifest(digest) is None:
            # Not every registry can delete a tag, and one that went with its manifest needs no deletion.
            if (
                not (self.settings.deletes and entry.deletes)
                or await client.digest_of(path, reference) is None
            ):
                return False
            await client.delete_manifest(path, reference)
            return True
        if len(self._mounts) > MOST_MOUNTS:
            self._mounts.clear()
        target = RegistryTarget(client, path, self._mounts)
        copier = Copier(source, target, referrers=True)
        tags = [reference] if isinstance(reference, Tag) else []
        if not tags and await target.digest_of(digest) == digest:
            return False
        return not (await copier.copy(digest, tags)).nothing
