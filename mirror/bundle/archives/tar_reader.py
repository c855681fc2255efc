"""A strict reader of tars: regular files and folders alone, each checked before a byte of it is used.

ustar, pax and GNU long names. Links, devices, pipes, sparse files and everything unknown are refused by name,
as are headers with a wrong checksum and an end without its mark: `tarfile` takes several of those for the
end.
"""

from collections.abc import Iterator

from msgspec import Struct

from mirror.bundle.archives.limits import Limits
from mirror.bundle.archives.names import safe_name
from mirror.bundle.archives.stream import Stream
from mirror.bundle.errors import Damaged, EntryRefused
from mirror.bundle.tar_format import BLOCK, header, padding

FILE, FOLDER = (b"0", b"\0", b"7"), b"5"
PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK = b"x", b"g", b"L", b"K"
REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
}

# Longest extra header. A path of 4 KiB and some times take 5.
LONGEST_EXTRA = 64 * 1024

# Zeros behind the end: GNU tar fills a record, of 1 MiB at most in practice.
LONGEST_FILL = 16 * 1024 * 1024


class TarEntry(Struct, frozen=True):
    """A regular file of the tar. `raw`: the headers, as they are in the tar."""

    name: str
    size: int
    raw: bytes


class TarReader:
    """The entries of a tar in order. The content of an entry is read, as far as wanted, before the next one.

    `exact`: True as long as all headers and fills are the bytes that `tar_format` makes.
    """

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._left = 0
        self._fill = 0
        self._count = 0
        self.exact = True

    def __iter__(self) -> Iterator[TarEntry]:
        while (entry := self._next()) is not None:
            if entry.name:
                yield entry

    def readinto(self, buffer: memoryview, /) -> int:
        """Read the content of the entry; 0 at its end. Raises Damaged if the tar ends before."""
        count = self._stream.readinto(buffer[: self._left])
        if not count and self._left and len(buffer):
            raise Damaged(f"the archive is cut short after {self._stream.at} bytes")
        self._left -= count
        return count

    def _next(self) -> TarEntry | None:
        """Return the next file; one with the name "" for a folder; None at the end."""
        self._stream.skip(self._left)
        self._left = 0
        self._end_fill()
        extras: dict[str, bytes] = {}
        raw = b""
        while (block := self._stream.read(BLOCK)).strip(b"\0"):
            self._count += 1
            if self._count > self._limits.entries:
                raise EntryRefused(f"the archive has more than {self._limits.entries} entries")
            raw += block
            kind = block[156:157]
            size = _checked(block)
            if kind not in (PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK):
                return self._entry(block, kind, size, extras, raw)
            if size > LONGEST_EXTRA or len(raw) > 4 * LONGEST_EXTRA:
                raise EntryRefused("an extra header is too long", _plain_name(block))
            data = self._stream.read(size + padding(size))
            raw += data
            extras |= _extra(kind, data[:size])
        if extras:
            raise Damaged("an extra header at the end of the archive")
        self._end()
        return None

    def _entry(self, block: bytes, kind: bytes, size: int, extras: dict[str, bytes], raw: bytes) -> TarEntry:
        name = safe_name(extras.get("path") or _plain_name(block).encode("utf-8", "surrogateescape"))
        if kind in REFUSED or kind not in (*FILE, FOLDER) or any(k.startswith("GNU.sparse") for k in extras):
            what = REFUSED.get(kind, "a sparse file" if kind in FILE else f"an entry of type {kind!r}")
            raise EntryRefused(f"{what} is never followed or kept", name)
        size = _number_of_pax(extras["size"], name) if "size" in extras else size
        is_folder = kind == FOLDER or _plain_name(block).endswith("/")
        if is_folder and size:
            raise EntryRefused("a folder with content", name)
        if size > self._limits.entry:
            raise EntryRefused(f"the entry has {size} bytes, more than {self._limits.entry}", name)
        if not is_folder and not name:
            raise EntryRefused("a file without a name")
        self._stream.require(size + padding(size))
        self._left, self._fill = size, padding(size)
        self.exact = self.exact and not is_folder and raw == header(name, size)
        return TarEntry("" if is_folder else name, size, raw)

    def _end_fill(self) -> None:
        if self._fill:
            fill = self._stream.read(self._fill)
            self.exact = self.exact and not fill.strip(b"\0")
            self._fill = 0

    def _end(self) -> None:
        """Read what is behind the first block of zeros: zeros alone, a block at least in an exact tar."""
        read = 0
        while data := self._stream.read_up_to(64 * 1024):
            read += len(data)
            if data.strip(b"\0"):
                raise Damaged("there is something behind the end of the archive")
            if read > LONGEST_FILL:
                raise Damaged("the archive goes on behind its end")
        self.exact = self.exact and read == BLOCK


def _checked(block: bytes) -> int:
    """Return the size field of a header. Raises Damaged unless the checksum holds."""
    stated = _number(block[148:156])
    if stated != sum(block) - sum(block[148:156]) + 8 * 32:
        raise Damaged("the header has a wrong checksum; damaged, or not a tar", _plain_name(block))
    return _number(block[124:136])


def _number(field: bytes) -> int:
    """Return a number: octal, or GNU's binary form of large ones. Raises Damaged."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if text.strip(b"01234567"):
        raise Damaged("a number in a header is damaged")
    return int(text or b"0", 8)


def _plain_name(block: bytes) -> str:
    """Return the name in a header without pax records."""
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345:500].strip(b"\0"):
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _extra(kind: bytes, data: bytes) -> dict[str, bytes]:
    if kind == LONG_LINK:
        return {}
    if kind == LONG_NAME:
        return {"path": data.rstrip(b"\0")}
    records = _records(data)
    if kind == PAX_GLOBAL:
        if records.keys() & {"path", "size"}:
            raise EntryRefused("a global header that names all entries")
        return {}
    return records


def _records(data: bytes) -> dict[str, bytes]:
    """Return pax records, `length key=value\\n` each. Raises Damaged."""
    found = {}
    while data:
        digits, space, _ = data[:20].partition(b" ")
        if not space or not digits.isdigit():
            raise Damaged("a pax header is damaged")
        record, data = data[: int(digits)], data[int(digits) :]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not equals or len(record) != int(digits) or record[-1:] != b"\n":
            raise Damaged("a pax header is damaged")
        found[key.decode("utf-8", "replace")] = value
    return found


def _number_of_pax(value: bytes, name: str) -> int:
    if not value.isdigit() or len(value) > 20:
        raise Damaged("the size is not a number", name)
    return int(value)
