"""Upkeep of a cache folder: garbage is removed, files are checked."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mirror.manage.steps import Call, Steps, StepThread
from mirror.store.cache_dir import CacheDirectory

if TYPE_CHECKING:
    from mirror.manage.garbage_collector import GarbageItem
    from mirror.manage.verification import Verification
    from mirror.store.blobs.fsck import FsckStep
    from mirror.util.rate_limiter import RateLimiter


class UpkeepManagement:
    """Garbage collection and verification of a folder."""

    def __init__(self, folder: CacheDirectory, worker: StepThread) -> None:
        self._folder = folder
        self._worker = worker

    def collect_garbage(self, *, dry_run: bool = False) -> "Steps[GarbageItem]":
        """Remove garbage, and whatever exceeds the quota: a step for each removal."""

        def begin() -> "Iterator[GarbageItem]":
            from mirror.manage.garbage_collector import GarbageCollector

            return GarbageCollector(self._folder, dry_run=dry_run).items()

        return Steps(self._worker, begin)

    def foreign_files(self) -> Call[list[Path]]:
        """Return what is in the cache folder and not the cache's own."""

        def find() -> list[Path]:
            from mirror.manage.garbage_collector import GarbageCollector

            return GarbageCollector(self._folder, dry_run=True).foreign()

        return Call(self._worker, find)

    def begin_verification(
        self, limiter: "RateLimiter", *, quick: bool, repair: bool
    ) -> "Call[Verification]":
        """Return a check of all files, which `verify` carries out from where the last one was interrupted."""

        def begin() -> "Verification":
            from mirror.manage.verification import Verification

            return Verification(self._folder, limiter, quick=quick, repair=repair)

        return Call(self._worker, begin)

    def verify(self, verification: "Verification") -> "Steps[FsckStep]":
        """Carry out a check. Its progress is in bytes, or in blobs if it is quick."""
        return Steps(self._worker, verification.steps, lambda: verification.progress)
