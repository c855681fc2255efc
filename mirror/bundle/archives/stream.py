"""Streams to read archives from: files, pipes, gzip and zstd, with a bound on what decompression makes."""

import gzip
import io
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from mirror.bundle.archives.limits import Limits
from mirror.bundle.errors import BundleError, Damaged, Unsupported
from mirror.bundle.pump import BUFFER, ByteSource, read_full

if TYPE_CHECKING:
    from typing import Any

GZIP, ZSTD, ZSTD_SKIPPABLE = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"\x04\x22\x4d\x18": "lz4"}

# Largest window of zstd: what the program `zstd` accepts without an option.
LARGEST_WINDOW = 128 * 1024 * 1024


class Stream:
    """A stream of bytes with a position. Raises Damaged where it is cut short, or cannot be decompressed."""

    def __init__(self, source: ByteSource, seekable: BinaryIO | None = None) -> None:
        self._source = source
        self._seekable = seekable
        self._size = None if seekable is None else _size_of(seekable)
        self.at = 0 if seekable is None else seekable.tell()

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer as far as the stream goes."""
        try:
            count = read_full(self._source, buffer)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise Damaged(f"the compression is damaged or cut short: {error}") from None
        self.at += count
        return count

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        data = self.read_up_to(size)
        if len(data) < size:
            raise Damaged(f"the archive is cut short after {self.at} bytes")
        return data

    def read_up_to(self, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def skip(self, size: int) -> None:
        """Go past `size` bytes, without reading them where the stream is a file."""
        self.require(size)
        if self._seekable is not None:
            self._seekable.seek(size, io.SEEK_CUR)
            self.at += size
            return
        buffer = memoryview(bytearray(min(size, BUFFER)))
        while size:
            count = self.readinto(buffer[: min(size, BUFFER)])
            if not count:
                raise Damaged(f"the archive is cut short after {self.at} bytes")
            size -= count

    def require(self, size: int) -> None:
        """Raise Damaged if a file ends within the next `size` bytes."""
        if self._size is not None and self.at + size > self._size:
            raise Damaged(f"the archive is cut short: it has {self._size} bytes, and needs {self.at + size}")


def open_stream(file: BinaryIO, limits: Limits) -> Stream:
    """Return the stream of a file or a pipe, decompressed. Raises Unsupported for other compressions."""
    source = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", file))
    start = source.peek(8)[:8]
    for magic, name in OTHERS.items():
        if start.startswith(magic):
            raise Unsupported(f"the archive is compressed by {name}; decompress it, or use gzip or zstd")
    counted = _Counted(source)
    if start.startswith(GZIP):
        return Stream(_Bounded(gzip.GzipFile(fileobj=cast("Any", counted)), counted, limits))
    if start.startswith(ZSTD) or start[1:4] == ZSTD_SKIPPABLE:
        return Stream(_Bounded(_zstd(counted), counted, limits))
    return Stream(source, source if source.seekable() else None)


class _Counted(io.RawIOBase):
    """A file that counts what is read of it."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        return data


class _Bounded:
    """Decompression that stops a bomb."""

    def __init__(self, source: ByteSource, counted: _Counted, limits: Limits) -> None:
        self._source = source
        self._counted = counted
        self._limits = limits
        self._made = 0

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._source.readinto(buffer) or 0
        self._made += count
        if self._made > self._limits.free and self._made > self._limits.ratio * self._counted.count:
            raise BundleError(
                f"the archive grows to more than {self._limits.ratio} times its size; "
                "if it is to be trusted, decompress it first"
            )
        return count


def _zstd(counted: _Counted) -> ByteSource:
    """Return a decompressor, whose errors are EOFError, as those of gzip."""
    import zstandard  # no other archive needs it

    class Reader:
        def __init__(self) -> None:
            decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
            self._reader = decompressor.stream_reader(cast("Any", counted), read_across_frames=True)

        def readinto(self, buffer: memoryview, /) -> int:
            try:
                return self._reader.readinto(buffer)
            except zstandard.ZstdError as error:
                raise EOFError(str(error)) from None

    return Reader()


def _size_of(file: BinaryIO) -> int:
    here = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(here)
    return size
