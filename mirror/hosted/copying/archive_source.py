"""Images of a file or folder, as the source of a copy.

A folder is read where it is. A tar is unpacked first, each blob proven by its digest, because its order is
not that of a push, and because it may be compressed or come from a pipe.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from mirror.bundle.archives.archive import Archive, Kind
from mirror.bundle.archives.found import FoundContent, FoundImage
from mirror.bundle.archives.opening import open_archive
from mirror.bundle.errors import BundleError
from mirror.bundle.model import BundleManifest
from mirror.bundle.pump import ByteSource
from mirror.hosted.copying.folder_ends import pieces_of
from mirror.hosted.copying.places import CopiedManifest, CopyFailed
from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestInvalid, parse_manifest
from mirror.util.tracebacks import reason_of


class ArchiveSource:
    """All images of an archive. `blobs`: the folder that has them, by algorithm and digest."""

    def __init__(self, archive: Archive, blobs: Path) -> None:
        self.images: tuple[FoundImage, ...] = archive.images
        self.notes = archive.notes
        self._manifests: dict[Digest, BundleManifest] = dict(archive.manifests)
        self._blobs = blobs

    async def manifest(self, digest: Digest) -> CopiedManifest | None:
        """Return a manifest of the archive."""
        found = self._manifests.get(digest)
        return None if found is None else CopiedManifest(found.data, found.media_type)

    async def blob(self, digest: Digest, _size: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a blob."""
        try:
            file = await asyncio.to_thread(open_plain, self._blobs / digest.algorithm / digest.encoded)
        except OSError as error:
            raise CopyFailed(f"the blob {digest} is not in the archive: {error.strerror}") from None
        with file:
            async for piece in pieces_of(file):
                yield piece

    async def referrers(self, digest: Digest) -> list[Digest]:
        """Return the manifests of the archive whose subject a digest is."""
        return [each for each, manifest in self._manifests.items() if _subject(manifest) == digest]


@contextmanager
def archive_source(source: Path | BinaryIO) -> Iterator[ArchiveSource]:
    """Open an archive, and unpack one that is no folder into a temporary folder. Raises CopyFailed."""
    try:
        with TemporaryDirectory(prefix="registry-mirror-") as temporary, open_archive(source) as archive:
            folder = isinstance(source, Path) and source.is_dir()
            _unpack(archive, None if folder else Path(temporary))
            if archive.kind is Kind.DISTRIBUTION:
                raise CopyFailed("the storage folder of a registry: registry-mirror import --as takes it")
            yield ArchiveSource(
                archive, source / "blobs" if isinstance(source, Path) and folder else Path(temporary)
            )
    except BundleError as error:
        raise CopyFailed(str(error)) from None


def _unpack(archive: Archive, folder: Path | None) -> None:
    """Read all contents, and write the blobs into a folder, if one is given. Raises CopyFailed."""
    try:
        for content in archive.contents():
            if not content.slice.whole:
                raise CopyFailed("a part of a bundle: import all parts, and copy from here")
            if folder is not None and content.manifest is None:
                content.stream_to(_FileSink(folder, content))
    except OSError as error:
        what = "read" if folder is None else f"unpacked to {folder.parent}, which TMPDIR names"
        raise CopyFailed(f"the archive cannot be {what}: {reason_of(error)}") from None


def open_plain(path: Path) -> BinaryIO:
    """Open a file of an archive's folder; a link is followed nowhere. Raises OSError."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb")


class _FileSink:
    """A blob of a tar, in a file by its digest."""

    def __init__(self, folder: Path, content: FoundContent) -> None:
        self._path = folder / content.digest.algorithm / content.digest.encoded
        self._path.parent.mkdir(exist_ok=True)
        self._file = self._path.open("wb")

    def write(self, data: memoryview, /) -> None:
        """Write the next bytes."""
        self._file.write(data)

    def take(self, _file: BinaryIO, _path: Path | None, /) -> ByteSource | None:
        """Take nothing: the bytes are written."""
        return None

    def commit(self) -> None:
        """Keep the file."""
        self._file.close()

    def abort(self) -> None:
        """Drop the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _subject(manifest: BundleManifest) -> Digest | None:
    with suppress(ManifestInvalid):
        subject = parse_manifest(manifest.data, manifest.media_type).subject
        return None if subject is None else subject.digest
    return None
