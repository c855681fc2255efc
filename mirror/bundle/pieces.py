"""Blobs that were split over parts, put together again in a folder, whatever the order of the parts.

Each blob is one file that its pieces are written into, at their places, so that nothing is copied twice. An
empty file beside it marks each piece that is complete. The blob's own digest proves the whole before it
leaves the folder. One process at a time may use a folder.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import cast

from mirror.bundle.errors import Damaged
from mirror.bundle.plan import Slice
from mirror.bundle.pump import Pump, Source
from mirror.oci.digest import Digest
from mirror.util.durable import open_file


class PieceSink:
    """The place of one piece in the file of its blob."""

    def __init__(self, file: Path, mark: Path, offset: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(file, flags, 0o600)
        self._mark = mark
        self._at = offset

    def write(self, data: memoryview, /) -> None:
        """Write the next bytes of the piece."""
        while data:
            count = os.pwrite(self._descriptor, data, self._at)
            self._at += count
            data = data[count:]

    def commit(self) -> None:
        """Mark the piece as complete, durably after its bytes."""
        os.fdatasync(self._descriptor)
        os.close(self._descriptor)
        self._mark.touch()

    def abort(self) -> None:
        """Leave the piece unmarked: it is written again."""
        os.close(self._descriptor)


class Pieces:
    """A folder of blobs that are not complete. The folder exists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, piece: Slice) -> bool:
        """Return whether a piece is here, complete."""
        return self._mark(piece).exists()

    def sink(self, piece: Slice) -> PieceSink:
        """Return the place of a piece, for `FoundContent.stream_to`."""
        mark = self._mark(piece)
        mark.unlink(missing_ok=True)
        return PieceSink(self._file(piece.digest), mark, piece.offset)

    def lacking(self, digest: Digest, size: int) -> int:
        """Return the number of bytes of a blob that are still lacking."""
        end, here = 0, 0
        for start, stop in sorted(self._ranges(digest)):
            here += max(0, min(stop, size) - max(start, end))
            end = max(end, stop)
        return size - here

    def complete(self, digest: Digest, size: int) -> Path | None:
        """Return the file of a blob whose pieces are all here and prove it, None if some are lacking.

        The caller moves the file away, and then calls `remove`. Raises Damaged, and removes the pieces, if
        they are not those of the blob.
        """
        if self.lacking(digest, size):
            return None
        path = self._file(digest)
        hasher = digest.hasher()
        with open_file(path) as file, Pump() as pump:
            count = pump.copy(cast("Source", file), size + 1, [hasher], len)
        if count != size or hasher.hexdigest() != digest.encoded:
            self.remove(digest)
            raise Damaged("the pieces make another blob; import the parts of the bundle again", str(digest))
        return path

    def remove(self, digest: Digest) -> None:
        """Remove what is left of a blob."""
        for mark in self._marks(digest):
            mark.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            self._file(digest).unlink()

    def digests(self) -> list[Digest]:
        """Return the blobs of which there is something here."""
        found = (path.name.split("-") for path in self._folder.iterdir() if path.suffix == ".pieces")
        return sorted(Digest(algorithm, rest.removesuffix(".pieces")) for algorithm, rest in found)

    def _file(self, digest: Digest) -> Path:
        return self._folder / f"{digest.algorithm}-{digest.encoded}.pieces"

    def _mark(self, piece: Slice) -> Path:
        stem = f"{piece.digest.algorithm}-{piece.digest.encoded}"
        return self._folder / f"{stem}.{piece.offset}-{piece.offset + piece.length}"

    def _marks(self, digest: Digest) -> list[Path]:
        return list(self._folder.glob(f"{digest.algorithm}-{digest.encoded}.[0-9]*-[0-9]*"))

    def _ranges(self, digest: Digest) -> list[tuple[int, int]]:
        found = (mark.name.rpartition(".")[2].split("-") for mark in self._marks(digest))
        return [(int(start), int(stop)) for start, stop in found]
