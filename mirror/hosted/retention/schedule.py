"""Retention in the background of a server: once an hour, a repository at a time, in one process."""

import time
from collections.abc import Callable, Iterable

from mirror.config.hosting.hosted import HostedSettings
from mirror.hosted.registry import Change, HostedRegistry
from mirror.hosted.retention.sweep import RetentionSweep, Swept
from mirror.util.log import get_logger

log = get_logger(__name__)

# Interval of the sweeps, and time before the first one, in seconds.
SWEEP_SECONDS = 3600.0
FIRST_SECONDS = 300.0


class RetentionSchedule:
    """The sweeps of all registries that have rules. `clock`: seconds of any clock."""

    def __init__(
        self,
        registry: HostedRegistry,
        hosted: Iterable[HostedSettings],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        folder = registry.store.folder
        self._sweeps = [RetentionSweep(folder, each) for each in hosted if each.retention]
        self._clock = clock
        self._next = clock() + FIRST_SECONDS

    async def tick(self) -> None:
        """Sweep if it is time. Raises StoreError."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + SWEEP_SECONDS
        store = self._registry.store
        for sweep in self._sweeps:
            for repository in await store.read(lambda: list(sweep.repositories())):  # noqa: B023  # runs now
                self._note(await store.read(sweep.sweep, repository))

    def _note(self, swept: Swept) -> None:
        """Log what went, and tell those who listen."""
        if swept.tags or swept.manifests:
            log.info(
                "tags removed by retention",
                repository=str(swept.repository),
                tags=len(swept.tags),
                manifests=len(swept.manifests),
            )
        for change in changes_of(swept):
            self._registry.tell(change)


def changes_of(swept: Swept) -> list[Change]:
    """Return the deletions of a sweep."""
    tags = [Change("delete", swept.repository, digest, name) for name, digest in swept.tags]
    return [*tags, *(Change("delete", swept.repository, digest) for digest in swept.manifests)]
