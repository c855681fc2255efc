"""Management: all use cases of operators on one cache folder, beside a running mirror or a stopped one.

    management = Management(CacheDirectory(path))               a command
    for image in management.images.matching(ImagePattern("*")): ...

    management = await Management.open(path)                    in an event loop
    async for image in management.images.matching(ImagePattern("*")): ...
    await management.aclose()

Each method of a part returns at once, with `Steps` or a `Call` (`mirror.manage.steps`), and imports its use
case when that begins: a command imports what it uses.
"""

from pathlib import Path

from mirror.config.schema import CacheSettings
from mirror.manage.facade.backups import BackupManagement
from mirror.manage.facade.bundles import ExportManagement, ImportManagement
from mirror.manage.facade.disk import DiskManagement
from mirror.manage.facade.images import ImageManagement, NameManagement
from mirror.manage.facade.pins import PinManagement
from mirror.manage.facade.tokens import TokenManagement
from mirror.manage.facade.upkeep import UpkeepManagement
from mirror.manage.steps import StepThread
from mirror.store.cache_dir import CacheDirectory


class Management:
    """The use cases on `folder`, by subject. A folder shared with a running `Store` is not closed here."""

    def __init__(self, folder: CacheDirectory, worker: StepThread | None = None) -> None:
        self.folder = folder
        self._worker = worker or StepThread()
        self._owns_folder = worker is not None
        self.images = ImageManagement(folder, self._worker)
        self.names = NameManagement(folder, self._worker)
        self.disk = DiskManagement(folder, self._worker)
        self.upkeep = UpkeepManagement(folder, self._worker)
        self.pins = PinManagement(folder, self._worker)
        self.tokens = TokenManagement(folder, self._worker)
        self.exports = ExportManagement(folder, self._worker)
        self.imports = ImportManagement(folder, self._worker)
        self.backups = BackupManagement(folder, self._worker)

    @classmethod
    async def open(cls, path: Path, settings: CacheSettings | None = None) -> "Management":
        """Open a folder in an event loop; `settings` give the quota. Raises StoreError."""
        worker = StepThread()
        return cls(await worker.start(CacheDirectory, path, settings), worker)

    async def aclose(self) -> None:
        """End the thread, and close the folder if `open` has opened it."""
        last = self.folder.close if self._owns_folder else self.folder.recovery.drop_connections
        await self._worker.close(last)
