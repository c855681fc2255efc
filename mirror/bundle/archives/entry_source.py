"""Entries of an archive in the layout of OCI, from a tar or from a folder."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from mirror.bundle.archives.limits import Limits
from mirror.bundle.archives.names import safe_name
from mirror.bundle.archives.tar_reader import TarReader
from mirror.bundle.errors import BundleError, EntryRefused
from mirror.bundle.pump import ByteSource
from mirror.util.durable import open_file

# Deepest folder: blobs/sha256 is two deep.
DEEPEST = 8


class ArchiveEntry:
    """A file of the archive; its content can be read once, before the next entry is asked for.

    `file`: that of a folder.
    """

    def __init__(self, name: str, size: int, source: ByteSource, file: BinaryIO | None = None) -> None:
        self.name = name
        self.size = size
        self.source = source
        self.file = file


class EntrySource(Protocol):
    """An archive as a sequence of files."""

    @property
    def exact(self) -> bool:
        """True if all that is not content is as the writer of bundles makes it."""

    def __iter__(self) -> Iterator[ArchiveEntry]: ...


class TarEntries:
    """The files of a tar."""

    def __init__(self, tar: TarReader) -> None:
        self._tar = tar

    @property
    def exact(self) -> bool:
        """True if headers and fills are those that the writer of bundles makes."""
        return self._tar.exact

    def __iter__(self) -> Iterator[ArchiveEntry]:
        for entry in self._tar:
            yield ArchiveEntry(entry.name, entry.size, self._tar)


class FolderEntries:
    """The files of a folder, documents first. Links are refused, and never followed."""

    exact = False

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits

    def __iter__(self) -> Iterator[ArchiveEntry]:
        for count, path in enumerate(self._files(self._folder, 0)):
            if count >= self._limits.entries:
                raise EntryRefused(f"the folder has more than {self._limits.entries} files")
            name = safe_name(os.fsencode(path.relative_to(self._folder)))
            with open_file(path) as file:
                size = os.fstat(file.fileno()).st_size
                yield ArchiveEntry(name, size, cast("ByteSource", file), file)

    def _files(self, folder: Path, depth: int) -> Iterator[Path]:
        """Yield the regular files below a folder: those of the folder itself, then those of its folders."""
        if depth > DEEPEST:
            raise EntryRefused(f"the folder is nested more than {DEEPEST} deep", str(folder))
        try:
            found = sorted(os.scandir(folder), key=lambda each: each.name)
        except OSError as error:
            raise BundleError(f"the folder cannot be read: {error.strerror}", str(folder)) from None
        folders = []
        for each in found:
            mode = each.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                folders.append(Path(each.path))
            elif stat.S_ISREG(mode):
                yield Path(each.path)
            else:
                raise EntryRefused("neither a file nor a folder; links are never followed", each.path)
        for path in folders:
            yield from self._files(path, depth + 1)
