"""Backups of a cache folder."""

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from mirror.manage.steps import Call, StepThread
from mirror.store.cache_dir import CacheDirectory

if TYPE_CHECKING:
    from mirror.manage.backup.layout import BackupContents
    from mirror.manage.backup.writer import BackupPlan
    from mirror.manage.carry.export import OutputFolder


class BackupManagement:
    """Backups of what nothing can fetch again."""

    def __init__(self, folder: CacheDirectory, worker: StepThread) -> None:
        self._folder = folder
        self._worker = worker

    def plan(self) -> "Call[BackupPlan]":
        """Return what a backup would have now."""

        def count() -> "BackupPlan":
            from mirror.manage.backup.writer import plan_backup

            return plan_backup(self._folder)

        return Call(self._worker, count)

    def write(
        self, output: "OutputFolder | BinaryIO", name: str, on_bytes: Callable[[int], object]
    ) -> "Call[BackupContents]":
        """Write what nothing can fetch again, beside a running mirror; return what it is."""

        def write() -> "BackupContents":
            from mirror.manage.backup.writer import write_backup

            return write_backup(self._folder, output, name, on_bytes)

        return Call(self._worker, write)
