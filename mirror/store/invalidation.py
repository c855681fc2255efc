"""What tells every process on a cache folder that something it may remember is no longer so.

`<cache folder>/generation` is two numbers of 8 bytes, memory-mapped, so that looking costs no system call and
can be done at every hit:

    removed    content, links or tags were removed: what is kept of them in memory ends
    pinned     a pin, or an image that a pin matches, has changed: what is pinned is worked out anew

A number is never counted up but drawn at random. So two processes that change it at once need no lock, and
whatever of it is seen differs from what was seen before.
"""

import mmap
import os
import secrets
import struct
from contextlib import suppress
from pathlib import Path

# Two native 64-bit numbers: an aligned one is read and written in one piece.
LAYOUT = struct.Struct("=QQ")


class Epoch:
    """Any thread may call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        # On a disk that cannot be written this process has numbers of its own.
        self._numbers: memoryview[int] | list[int] = [0, 0]
        self.reopen()

    def reopen(self) -> None:
        """Look at the file of that name, which may have been removed and made anew."""
        with suppress(OSError):
            self._map = _mapped(self._path)
            # The old one goes with the last thread that looks at it.
            self._numbers = memoryview(self._map).cast("Q")

    def removals(self) -> int:
        """Equal as long as nothing was removed."""
        return self._numbers[0]

    def pin_changes(self) -> int:
        """Equal as long as what is pinned has not changed."""
        return self._numbers[1]

    def note_removal(self) -> None:
        self._numbers[0] = secrets.randbits(64)

    def note_pin_change(self) -> None:
        self._numbers[1] = secrets.randbits(64)

    def close(self) -> None:
        """Let go of the file; whoever still looks sees nothing change."""
        numbers = self._numbers
        if isinstance(numbers, memoryview):
            self._numbers = list(numbers)
            numbers.release()
            if self._map is not None:
                self._map.close()


def _mapped(path: Path) -> mmap.mmap:
    descriptor = open_shared(path)
    try:
        # With its block: a page that a full disk cannot back kills the process that writes it (SIGBUS).
        os.posix_fallocate(descriptor, 0, LAYOUT.size)
        return mmap.mmap(descriptor, LAYOUT.size)
    finally:
        os.close(descriptor)


def open_shared(path: Path) -> int:
    """A descriptor of a small file that all processes of the mirror write, created if it is new.

    It belongs to the owner of the folder: what root's command creates, the mirror's own user must be able to
    open.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o600)
        if os.geteuid() == 0:
            owner = os.stat(path.parent)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor
