"""Headers of a tar: the same bytes for the same path and size, on every machine.

ustar (POSIX.1-1988), with a pax record only for a path that has no place in the header (over 100 bytes
without a slash to split at) and for a size of 8 GiB and more. Owner, group and time are zero.
"""

BLOCK = 512
END = bytes(2 * BLOCK)

# Largest number of eleven octal digits: the size field of ustar.
LARGEST_USTAR = 8**11 - 1

REGULAR, PAX = b"0", b"x"


def padding(size: int) -> int:
    """Return the number of zero bytes after `size` bytes, to the end of the block."""
    return -size % BLOCK


def header(path: str, size: int) -> bytes:
    """Return the header of a regular file, with a pax header before it where ustar has no room."""
    name = path.encode()
    split = _split(name)
    records = b""
    if split is None:
        records += _record("path", path)
    if size > LARGEST_USTAR:
        records += _record("size", str(size))
    prefix, tail = split or (b"", name[-100:])
    own = _ustar(prefix, tail, 0 if size > LARGEST_USTAR else size, REGULAR)
    if not records:
        return own
    return _ustar(b"", b"PaxHeaders/file", len(records), PAX) + records + bytes(padding(len(records))) + own


def header_size(path: str, size: int) -> int:
    """Return the length of `header`."""
    is_plain = len(path) <= 100 and path.isascii() and size <= LARGEST_USTAR
    return BLOCK if is_plain else len(header(path, size))


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Split a path into the fields `prefix` and `name`; None if it does not fit."""
    if len(name) <= 100:
        return b"", name
    for place in range(len(name) - 101, min(len(name) - 1, 156)):
        if name[place : place + 1] == b"/":
            return name[:place], name[place + 1 :]
    return None


def _record(key: str, value: str) -> bytes:
    """Return a pax record, whose length counts its own digits."""
    rest = f" {key}={value}\n".encode()
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _ustar(prefix: bytes, name: bytes, size: int, kind: bytes) -> bytes:
    fields = (
        name.ljust(100, b"\0"),
        b"0000644\0",  # mode
        b"0000000\0" * 2,  # owner, group
        b"%011o\0" % size,
        b"%011o\0" % 0,  # time
        b" " * 8,  # place of the checksum, which counts as spaces
        kind.ljust(101, b"\0"),  # and no name of a link
        b"ustar\x0000".ljust(72, b"\0"),  # version, names of owner and group
        b"0000000\0" * 2,  # device
        prefix.ljust(155, b"\0"),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
