"""Management: all use cases of operators on one cache folder, beside a running mirror or a stopped one.

    management = Management(CacheDirectory(path))               a command
    for image in management.images(ImagePattern("*")): ...

    management = await Management.open(path)                    in an event loop
    async for image in management.images(ImagePattern("*")): ...
    await management.aclose()

Each method returns at once, with `Steps` or a `Call` (`mirror.manage.steps`), and imports its use case when
that begins: a command imports what it uses.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mirror.config.schema import CacheSettings
from mirror.manage.steps import Call, Steps, StepThread
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.quota import DiskRoom, Shortage
from mirror.store.cache_dir import CacheDirectory
from mirror.store.pins.pin_file import PinEntry

if TYPE_CHECKING:
    from mirror.access.tokens import TokenEntry
    from mirror.bundle.archives.archive import Archive
    from mirror.bundle.have import HaveList
    from mirror.bundle.model import BundleContents
    from mirror.manage.backup.layout import BackupContents
    from mirror.manage.backup.writer import BackupPlan
    from mirror.manage.browse.detail import ImageDetail
    from mirror.manage.browse.search import FoundTag, RepositoryRow, TagRow
    from mirror.manage.carry.contents import Collected
    from mirror.manage.carry.export import OutputFolder
    from mirror.manage.carry.export_run import Export, ExportedFile, ExportOptions
    from mirror.manage.carry.imports import Import, ImportedImage, ImportOptions
    from mirror.manage.carry.selection import Selection
    from mirror.manage.disk_usage import DiskTotals, RepositoryUsage
    from mirror.manage.garbage_collector import GarbageItem
    from mirror.manage.inventory import ImageSummary
    from mirror.manage.removal import RemovalStep
    from mirror.manage.tokens import WantedToken
    from mirror.manage.verification import Verification
    from mirror.store.blobs.fsck import FsckStep
    from mirror.store.tokens.token_store import ListedToken
    from mirror.util.rate_limiter import RateLimiter


class Management:
    """The use cases on `folder`. A folder that is shared with a running `Store` is not closed here."""

    def __init__(self, folder: CacheDirectory, worker: StepThread | None = None) -> None:
        self.folder = folder
        self._worker = worker or StepThread()
        self._owns_folder = worker is not None

    @classmethod
    async def open(cls, path: Path, settings: CacheSettings | None = None) -> "Management":
        """Open a folder in an event loop; `settings` give the quota. Raises StoreError."""
        worker = StepThread()
        return cls(await worker.start(CacheDirectory, path, settings), worker)

    async def aclose(self) -> None:
        """End the thread, and close the folder if `open` has opened it."""
        last = self.folder.close if self._owns_folder else self.folder.recovery.drop_connections
        await self._worker.close(last)

    def images(self, wanted: ImagePattern) -> "Steps[ImageSummary]":
        """Return the images that match, by repository and tag."""

        def begin() -> "Iterator[ImageSummary]":
            from mirror.manage.inventory import Inventory

            return Inventory(self.folder).images(wanted)

        return Steps(self._worker, begin)

    def find_repositories(self, words: Sequence[str], after: str) -> Call[list[str]]:
        """Return the next repositories, `<upstream>/<repository>`, whose names have all words."""

        def find() -> list[str]:
            from mirror.manage.browse.search import NameSearch

            return NameSearch(self.folder.index).repositories(words, after)

        return Call(self._worker, find)

    def repository_rows(self, names: Sequence[str]) -> "Call[list[RepositoryRow]]":
        """Return what a list shows of repositories."""

        def count() -> "list[RepositoryRow]":
            from mirror.manage.browse.search import NameSearch, RepositoryRow

            counts = NameSearch(self.folder.index).count_tags(names)
            return [RepositoryRow(each, counts[each]) for each in names]

        return Call(self._worker, count)

    def find_tags(self, words: Sequence[str], after: str, name: str = "") -> "Call[list[FoundTag]]":
        """Return the next tags whose names have all words; of one repository, if it is named."""

        def find() -> "list[FoundTag]":
            from mirror.manage.browse.search import NameSearch

            return NameSearch(self.folder.index).tags(words, after, name)

        return Call(self._worker, find)

    def tag_rows(self, found: "Sequence[FoundTag]") -> "Call[list[TagRow]]":
        """Return what a list shows of tags."""

        def describe() -> "list[TagRow]":
            from mirror.manage.browse.search import TagDescriber

            return TagDescriber(self.folder).rows(found)

        return Call(self._worker, describe)

    def image(
        self, repository: Repository, reference: Tag | Digest, now: float
    ) -> "Call[ImageDetail | None]":
        """Return an image in detail; None for one that is not known here."""

        def read() -> "ImageDetail | None":
            from mirror.manage.browse.detail import ImageReader

            return ImageReader(self.folder, now).read(repository, reference)

        return Call(self._worker, read)

    def removal(
        self, wanted: ImagePattern, *, forced: bool = False, dry_run: bool = False
    ) -> "Steps[RemovalStep]":
        """Remove the images that match, pinned ones only if `forced`: a step for each repository."""

        def begin() -> "Iterator[RemovalStep]":
            from mirror.manage.removal import ImageRemoval

            removal = ImageRemoval(self.folder, wanted, forced=forced)
            return removal.steps() if dry_run else removal.carry_out()

        return Steps(self._worker, begin)

    def garbage(self, *, dry_run: bool = False) -> "Steps[GarbageItem]":
        """Remove garbage, and whatever exceeds the quota: a step for each removal."""

        def begin() -> "Iterator[GarbageItem]":
            from mirror.manage.garbage_collector import GarbageCollector

            return GarbageCollector(self.folder, dry_run=dry_run).items()

        return Steps(self._worker, begin)

    def foreign_files(self) -> Call[list[Path]]:
        """Return what is in the cache folder and not the cache's own."""

        def find() -> list[Path]:
            from mirror.manage.garbage_collector import GarbageCollector

            return GarbageCollector(self.folder, dry_run=True).foreign()

        return Call(self._worker, find)

    def usage(self, wanted: ImagePattern | None = None) -> "Steps[RepositoryUsage]":
        """Return the usage of each repository that matches; without a pattern, of each upstream too."""

        def begin() -> "Iterator[RepositoryUsage]":
            from mirror.manage.disk_usage import DiskUsage

            usage = DiskUsage(self.folder)
            return usage.all() if wanted is None else usage.matching(wanted)

        return Steps(self._worker, begin)

    def disk_totals(self) -> "Call[DiskTotals]":
        """Return what the cache holds and may hold, in bytes."""

        def count() -> "DiskTotals":
            from mirror.manage.disk_usage import disk_totals

            return disk_totals(self.folder)

        return Call(self._worker, count)

    def room(self) -> Call[DiskRoom]:
        """Return the room on the disk."""
        return Call(self._worker, self.folder.room)

    def shortage(self) -> Call[Shortage | None]:
        """Return the shortage if the disk leaves the cache no room."""
        return Call(self._worker, self.folder.shortage)

    def excess(self) -> Call[int]:
        """Return the bytes by which the cache exceeds its quota; 0 or less for none."""
        return Call(self._worker, self.folder.excess)

    def pin(self, pin: Pin) -> Call[int]:
        """Keep what matches; return how many bytes match, as far as they are known. Raises PinTooLarge."""
        return Call(self._worker, lambda: self.folder.pin(pin))

    def unpin(self, images: ImagePattern) -> Call[bool]:
        """Remove a pin; return whether there was such a pin. Pins of the configuration stay."""
        return Call(self._worker, lambda: self.folder.unpin(images))

    def pins(self) -> Call[list[PinEntry]]:
        """Return all pins."""
        return Call(self._worker, self.folder.pins.all)

    def pin_sizes(self, pin: Pin) -> Call[tuple[int, int]]:
        """Return the known bytes of all that a pin keeps, and of its part that is here."""

        def count() -> tuple[int, int]:
            kept = self.folder.pins.closure([pin])
            here = self.folder.blobs.sizes_and_last_use(kept)
            return sum(kept.values()), sum(size for size, _ in here.values())

        return Call(self._worker, count)

    def create_token(self, wanted: "WantedToken") -> "Call[tuple[str, TokenEntry]]":
        """Create a token; return its secret, which is kept nowhere, and the rest. Raises TokenExists."""

        def create() -> "tuple[str, TokenEntry]":
            from mirror.manage.tokens import create_token

            return create_token(self.folder, wanted)

        return Call(self._worker, create)

    def tokens(self) -> "Call[list[ListedToken]]":
        """Return the tokens with their last use, sorted by name."""

        def find() -> "list[ListedToken]":
            from mirror.manage.tokens import tokens_of

            return tokens_of(self.folder).listed()

        return Call(self._worker, find)

    def revoke_token(self, name: str) -> Call[bool]:
        """Revoke a token in all workers at once; return whether there was such a token."""

        def revoke() -> bool:
            from mirror.manage.tokens import tokens_of

            return tokens_of(self.folder).remove(name)

        return Call(self._worker, revoke)

    def verification(self, limiter: "RateLimiter", *, quick: bool, repair: bool) -> "Call[Verification]":
        """Return a check of all files, which goes on where the last one was interrupted."""

        def begin() -> "Verification":
            from mirror.manage.verification import Verification

            return Verification(self.folder, limiter, quick=quick, repair=repair)

        return Call(self._worker, begin)

    def verify(self, verification: "Verification") -> "Steps[FsckStep]":
        """Carry out a check. Its progress is in bytes, or in blobs if it is quick."""
        return Steps(self._worker, verification.steps, lambda: verification.progress)

    def have(self) -> "Call[HaveList]":
        """Return the list of all blobs that are here, for an export that carries what is lacking."""

        def find() -> "HaveList":
            from mirror.manage.carry.have import have

            return have(self.folder)

        return Call(self._worker, find)

    def collect(self, selection: "Selection") -> "Call[Collected]":
        """Return what a bundle of a selection has, and what of it is missing here."""

        def find() -> "Collected":
            from mirror.manage.carry.contents import collect

            return collect(self.folder, selection)

        return Call(self._worker, find)

    def begin_export(
        self, contents: "BundleContents", output: "OutputFolder | BinaryIO", options: "ExportOptions"
    ) -> "Call[Export]":
        """Return an export of what was collected, which `write_export` carries out."""

        def begin() -> "Export":
            from mirror.manage.carry.export_run import Export

            return Export(self.folder, contents, output, options)

        return Call(self._worker, begin)

    def write_export(self, run: "Export") -> "Steps[ExportedFile]":
        """Write the files of an export, from where an interrupted one stopped: a step for each file."""
        return Steps(self._worker, run.steps)

    def begin_import(self, options: "ImportOptions") -> "Call[Import]":
        """Return an import, which `read_archive` gives its archives, and `finish_import` ends."""

        def begin() -> "Import":
            from mirror.manage.carry.imports import Import

            return Import(self.folder, options)

        return Call(self._worker, begin)

    def read_archive(
        self, run: "Import", archive: "Archive", origin: str, on_bytes: Callable[[int], object]
    ) -> Call[None]:
        """Take the blobs of an archive; `on_bytes` is called in the thread that reads."""
        return Call(self._worker, lambda: run.read(archive, origin, on_bytes))

    def finish_import(self, run: "Import") -> "Steps[ImportedImage]":
        """Write the index of an import: a step for each image."""
        return Steps(self._worker, run.finish)

    def plan_backup(self) -> "Call[BackupPlan]":
        """Return what a backup would have now."""

        def count() -> "BackupPlan":
            from mirror.manage.backup.writer import plan_backup

            return plan_backup(self.folder)

        return Call(self._worker, count)

    def backup(
        self, output: "OutputFolder | BinaryIO", name: str, on_bytes: Callable[[int], object]
    ) -> "Call[BackupContents]":
        """Write what nothing can fetch again, beside a running mirror; return what it is."""

        def write() -> "BackupContents":
            from mirror.manage.backup.writer import write_backup

            return write_backup(self.folder, output, name, on_bytes)

        return Call(self._worker, write)
