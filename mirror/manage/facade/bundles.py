"""Bundles of images, out of a cache folder and into it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from mirror.manage.steps import Call, Steps, StepThread
from mirror.store.cache_dir import CacheDirectory

if TYPE_CHECKING:
    from mirror.bundle.archives.archive import Archive
    from mirror.bundle.have import HaveList
    from mirror.bundle.model import BundleContents
    from mirror.manage.carry.contents import Collected
    from mirror.manage.carry.export import OutputFolder
    from mirror.manage.carry.export_run import Export, ExportedFile, ExportOptions
    from mirror.manage.carry.imports import Import, ImportedImage, ImportOptions
    from mirror.manage.carry.selection import Selection


class ExportManagement:
    """Exports of images to archives."""

    def __init__(self, folder: CacheDirectory, worker: StepThread) -> None:
        self._folder = folder
        self._worker = worker

    def have(self) -> "Call[HaveList]":
        """Return the list of all blobs that are here, for an export that carries what is lacking."""

        def find() -> "HaveList":
            from mirror.manage.carry.have import have

            return have(self._folder)

        return Call(self._worker, find)

    def collect(self, selection: "Selection") -> "Call[Collected]":
        """Return what a bundle of a selection has, and what of it is missing here."""

        def find() -> "Collected":
            from mirror.manage.carry.contents import collect

            return collect(self._folder, selection)

        return Call(self._worker, find)

    def begin(
        self, contents: "BundleContents", output: "OutputFolder | BinaryIO", options: "ExportOptions"
    ) -> "Call[Export]":
        """Return an export of what was collected, which `write` carries out."""

        def begin() -> "Export":
            from mirror.manage.carry.export_run import Export

            return Export(self._folder, contents, output, options)

        return Call(self._worker, begin)

    def write(self, run: "Export") -> "Steps[ExportedFile]":
        """Write the files of an export, from where an interrupted one stopped: a step for each file."""
        return Steps(self._worker, run.steps)


class ImportManagement:
    """Imports of archives."""

    def __init__(self, folder: CacheDirectory, worker: StepThread) -> None:
        self._folder = folder
        self._worker = worker

    def begin(self, options: "ImportOptions") -> "Call[Import]":
        """Return an import, which `read` gives its archives, and `finish` ends."""

        def begin() -> "Import":
            from mirror.manage.carry.imports import Import

            return Import(self._folder, options)

        return Call(self._worker, begin)

    def read(
        self, run: "Import", archive: "Archive", origin: str, on_bytes: Callable[[int], object]
    ) -> Call[None]:
        """Take the blobs of an archive; `on_bytes` is called in the thread that reads."""
        return Call(self._worker, lambda: run.read(archive, origin, on_bytes))

    def finish(self, run: "Import") -> "Steps[ImportedImage]":
        """Write the index of an import: a step for each image."""
        return Steps(self._worker, run.finish)
