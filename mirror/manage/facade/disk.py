"""Use of the disk by a cache folder, in bytes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mirror.manage.steps import Call, Steps, StepThread
from mirror.oci.image_pattern import ImagePattern
from mirror.store.blobs.quota import DiskRoom, Shortage
from mirror.store.cache_dir import CacheDirectory

if TYPE_CHECKING:
    from mirror.manage.disk_usage import DiskTotals, RepositoryUsage


class DiskManagement:
    """Bytes that a folder holds, and the room for more."""

    def __init__(self, folder: CacheDirectory, worker: StepThread) -> None:
        self._folder = folder
        self._worker = worker

    def usage(self, wanted: ImagePattern | None = None) -> "Steps[RepositoryUsage]":
        """Return the usage of each repository that matches; without a pattern, of each upstream too."""

        def begin() -> "Iterator[RepositoryUsage]":
            from mirror.manage.disk_usage import DiskUsage

            usage = DiskUsage(self._folder)
            return usage.all() if wanted is None else usage.matching(wanted)

        return Steps(self._worker, begin)

    def totals(self) -> "Call[DiskTotals]":
        """Return what the cache holds and may hold, in bytes."""

        def count() -> "DiskTotals":
            from mirror.manage.disk_usage import disk_totals

            return disk_totals(self._folder)

        return Call(self._worker, count)

    def room(self) -> Call[DiskRoom]:
        """Return the room on the disk."""
        return Call(self._worker, self._folder.evictor.room)

    def shortage(self) -> Call[Shortage | None]:
        """Return the shortage if the disk leaves the cache no room."""
        return Call(self._worker, self._folder.evictor.shortage)

    def excess(self) -> Call[int]:
        """Return the bytes by which the cache exceeds its quota; 0 or less for none."""
        return Call(self._worker, self._folder.evictor.excess)
