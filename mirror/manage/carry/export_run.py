"""An export from its first byte to its report: its blobs are held, and its files written in turn."""

from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

from msgspec import Struct

from mirror.bundle.errors import BundleError, Damaged
from mirror.bundle.model import BundleContents
from mirror.bundle.writer import write
from mirror.manage.carry.export import (
    ExportError,
    OutputFile,
    OutputFolder,
    is_complete,
    targets,
    with_known_times,
    write_target,
)
from mirror.manage.carry.held import BlobGone, HeldBlobs
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.closure import digest_or_none

# "present": the file was there already, with the same content.
ExportState = Literal["done", "present"]


class NoSuchPart(ExportError):
    """A part that the bundle does not have."""


class BlobDamaged(ExportError):
    """A blob is wrong on the disk; it is in quarantine now."""


class ExportOptions(Struct, frozen=True):
    """The operator's wishes.

    `name`: that of the file; a part adds its number. `limit`: the files are smaller than that many bytes, 0
    for one file. `part`: number of the part to write, from 1, 0 for all. `open_files`: limit of this process.
    `on_bytes` is called with a file and numbers of its bytes, first with those that were there.
    """

    name: str
    limit: int
    part: int
    open_files: int
    on_bytes: Callable[[OutputFile, int], object]


class ExportedFile(Struct, frozen=True):
    """The result of a file."""

    file: OutputFile
    state: ExportState


class Export:
    """One export to a folder, or to a stream, which takes one file. `files`: those to write, in order."""

    def __init__(
        self,
        folder: CacheDirectory,
        contents: BundleContents,
        output: OutputFolder | BinaryIO,
        options: ExportOptions,
    ) -> None:
        """Plan the files. Raises BundleError, and NoSuchPart."""
        self._folder = folder
        self._output = output
        self._options = options
        if isinstance(output, OutputFolder):
            contents = with_known_times(contents, output, options.name)
        found = targets(options.name, contents, options.limit)
        if options.part > len(found):
            raise NoSuchPart(f"the bundle has {len(found)} parts")
        self._blobs = list(contents.blobs)
        self.files = [each for each in found if options.part in (0, each.number)]

    def steps(self) -> Iterator[ExportedFile]:
        """Write the files, and yield the result of each.

        Raises BlobGone, BlobDamaged, ExportError and OSError. What was written stays, to go on with.
        """
        with HeldBlobs(self._folder, self._options.open_files) as held:
            if gone := held.hold(self._blobs):
                raise BlobGone(gone[0])
            for file in self.files:
                try:
                    yield ExportedFile(file, self._write(file, held))
                except Damaged as error:
                    self._quarantine(error)

    def _write(self, file: OutputFile, held: HeldBlobs) -> ExportState:
        def note(count: int) -> None:
            self._options.on_bytes(file, count)

        if not isinstance(self._output, OutputFolder):
            write(file.plan, held.open, self._output, 0, note)
            self._output.flush()
        elif is_complete(self._output, file):
            return "present"
        else:
            write_target(self._output, file, held.open, note)
        return "done"

    def _quarantine(self, error: BundleError) -> None:
        """Remove the blob that is wrong on the disk. Raises BlobDamaged."""
        if (digest := digest_or_none(error.entry)) is not None:
            self._folder.blobs.quarantine(digest)
        raise BlobDamaged(
            f"{error}; it is in quarantine now. Pull the image through the mirror again, then repeat this"
        ) from error
