"""Sinks of an import: places in `partial/` for content that is not proven yet.

A large blob is written into its partial, as by a fill, with the same lock: readers of a running mirror follow
it, and its fills wait for it. While another process holds that lock, and for small blobs, an import has files
of its own, named `import-...` and locked. Those of an import that was killed are removed by the next one.
"""

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from msgspec.structs import replace

from mirror.bundle.errors import BundleError
from mirror.bundle.pump import ByteSource
from mirror.manage.carry.sharing import clone, link
from mirror.oci.digest import Digest
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.store.blobs.quota import ROOM_STEP
from mirror.store.cache_dir import CacheDirectory
from mirror.store.folder.fills import RESTORED_CHUNK
from mirror.store.lock import blob_key, is_name_of, try_lock
from mirror.store.partial.partial import Partial
from mirror.util.durable import WriteBack, open_file

# How the names of an import's own files in `partial/` begin.
OWN = "import-"

# Errors of a disk that is full.
FULL = (errno.ENOSPC, errno.EDQUOT)

# Called with the digest and the size of a blob that was adopted, and the excess above the quota after that.
OnStored = Callable[[Digest, int, int], object]


class BlobSink(Protocol):
    """A place for content, as `mirror.bundle` has it; all methods may raise OSError."""

    def write(self, data: memoryview, /) -> None:
        """Take the next bytes."""

    def take(self, file: BinaryIO, path: Path | None, /) -> ByteSource | None:
        """Take a whole file without writing its bytes; return what is kept; None if that is not possible."""

    def commit(self) -> None:
        """Keep the content: it is proven."""

    def abort(self) -> None:
        """Drop the content."""


class SmallSink:
    """A small blob, in memory until it is proven."""

    def __init__(self, digest: Digest, size: int, keep: Callable[[Digest, bytearray], object]) -> None:
        self._digest = digest
        self._size = size
        self._keep = keep
        self._data = bytearray()

    def write(self, data: memoryview, /) -> None:
        self._data += data

    def take(self, _file: BinaryIO, _path: Path | None, /) -> None:
        """Take nothing: a copy of a small blob costs less than a file of its own."""

    def commit(self) -> None:
        self._keep(self._digest, self._data)

    def abort(self) -> None:
        self._data.clear()


class PartialSink:
    """A large blob, written to its partial, which this process has locked."""

    def __init__(self, folder: CacheDirectory, partial: Partial, size: int, on_stored: OnStored) -> None:
        """Begin from nothing: what an interrupted fill has left may be wrong. Raises NoRoom."""
        self._folder = folder
        self._partial = partial
        self._size = size
        self._on_stored = on_stored
        self._at = 0
        self._write_back = WriteBack(partial.descriptor)
        self._reader: BinaryIO | None = None
        self._linked: Path | None = None
        try:
            self._chunks = folder.fills.allocate(partial, size, RESTORED_CHUNK)
        except BaseException:
            self.abort()
            raise

    def write(self, data: memoryview, /) -> None:
        write_with_room(self._folder, self._partial, self._at, data, self._size)
        self._chunks.record(self._at, len(data))
        self._at += len(data)
        self._write_back.note(len(data))

    def take(self, file: BinaryIO, path: Path | None, /) -> ByteSource | None:
        """Share the file's blocks, or else the file. What is read to be proven is what will be kept."""
        if clone(file.fileno(), self._partial.descriptor, self._size):
            self._chunks.record(0, self._size)
            self._reader = open_file(self._partial.data_path)
        else:
            name = self._folder.partials / f"{OWN}{blob_key(self._partial.digest)}.link"
            if path is None or not link(file.fileno(), path, name, self._size):
                return None
            self._linked = name
            self._reader = open_file(name)
        return cast("ByteSource", self._reader)

    def commit(self) -> None:
        try:
            if self._linked is None:
                adopt(self._folder, self._partial, self._on_stored)
            else:
                verified = VerifiedFile(self._partial.digest, self._linked, self._size, origin=Origin.PRIVATE)
                self._on_stored(verified.digest, verified.size, self._folder.writer.adopt(verified))
        finally:
            self.abort()

    def abort(self) -> None:
        try:
            if self._reader is not None:
                self._reader.close()
            if self._linked is not None:
                self._linked.unlink(missing_ok=True)
            self._partial.discard()
        finally:
            self._partial.release()


class BesideSink:
    """A large blob in a file of the import's own."""

    def __init__(
        self, folder: CacheDirectory, verified: VerifiedFile, lock: int, on_stored: OnStored
    ) -> None:
        self._folder = folder
        self._verified = verified
        self._lock = lock
        self._on_stored = on_stored

    def write(self, data: memoryview, /) -> None:
        while data:
            data = data[os.write(self._lock, data) :]

    def take(self, _file: BinaryIO, _path: Path | None, /) -> None:
        """Take nothing: the file is open here already."""

    def commit(self) -> None:
        try:
            excess = self._folder.writer.adopt(self._verified)
        finally:
            self.abort()
        self._on_stored(self._verified.digest, self._verified.size, excess)

    def abort(self) -> None:
        self._verified.path.unlink(missing_ok=True)
        os.close(self._lock)


def adopt(folder: CacheDirectory, partial: Partial, on_stored: OnStored) -> None:
    """Move the whole blob of a partial, which is proven, into the store."""
    if partial.chunks is not None:
        partial.chunks.set_verified()
    verified = replace(partial.verified_file(), origin=Origin.PRIVATE)
    excess = folder.writer.adopt(verified)
    on_stored(verified.digest, verified.size, excess)


def write_with_room(
    folder: CacheDirectory, partial: Partial, offset: int, data: memoryview, size: int
) -> None:
    """Write bytes of a blob that ends at `size`, with room made for them as for those of a fill."""
    try:
        partial.write(offset, [data], None)
    except OSError as error:
        if error.errno not in FULL or not folder.evictor.make_room(size - offset):
            raise
        partial.write(offset, [data], None)
    if (
        offset // ROOM_STEP != (offset + len(data)) // ROOM_STEP
        and folder.evictor.excess(filling=partial.digest) > 0
    ):
        folder.evictor.evict(filling=partial.digest)


def own_file(digest: Digest, partials: Path) -> tuple[Path, int]:
    """Create and lock an empty file for a blob; return it and its descriptor. BundleError if it is locked."""
    path = partials / f"{OWN}{blob_key(digest)}"
    lock = try_lock(path)
    if lock is None:
        raise BundleError("another import takes this blob now: repeat the command", str(digest))
    os.ftruncate(lock, 0)
    return path, lock


def remove_leftovers(partials: Path) -> None:
    """Remove files of imports that were killed."""
    for path in partials.glob(f"{OWN}*"):
        with suppress(OSError), open_file(path) as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_name_of(path, file.fileno()):
                path.unlink()
