"""Opening of archives: which kind is it?"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mirror.bundle.archives.archive import Archive
from mirror.bundle.archives.distribution import DistributionArchive, storage_root
from mirror.bundle.archives.entry_source import FolderEntries, TarEntries
from mirror.bundle.archives.layout_reader import LayoutArchive
from mirror.bundle.archives.limits import DEFAULT, Limits
from mirror.bundle.archives.stream import open_stream
from mirror.bundle.archives.tar_reader import TarReader
from mirror.bundle.errors import BundleError
from mirror.bundle.pump import Pump, read_ahead


@contextmanager
def open_archive(source: Path | BinaryIO, limits: Limits = DEFAULT) -> Iterator[Archive]:
    """Open a tar (plain, gzip, zstd), an OCI layout as a folder, or the storage folder of distribution.

    A stream need not be seekable. Raises BundleError.
    """
    with Pump() as pump:
        if not isinstance(source, Path):
            yield _tar(source, pump, limits)
        elif source.is_dir():
            yield _folder(source, pump, limits)
        else:
            with open_regular(source) as file:
                read_ahead(file)
                yield _tar(file, pump, limits)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a pipe that the operator names is one too. Raises BundleError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BundleError(f"cannot be opened: {error.strerror}", str(path)) from None
    if stat.S_ISBLK(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BundleError("a block device; give the file on it", str(path))
    return file


def _tar(file: BinaryIO, pump: Pump, limits: Limits) -> Archive:
    return LayoutArchive(TarEntries(TarReader(open_stream(file, limits), limits)), pump, limits)


def _folder(path: Path, pump: Pump, limits: Limits) -> Archive:
    root = storage_root(path)
    if root is not None:
        return DistributionArchive(root, pump, limits)
    return LayoutArchive(FolderEntries(path, limits), pump, limits)
