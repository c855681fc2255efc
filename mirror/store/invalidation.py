"""Epochs: numbers by which the processes on a cache folder tell each other that cached state is out of date.

`<cache folder>/generation` has four numbers of 8 bytes, memory-mapped, so that a look costs no system call
and can be done at every hit:

    removals      content, links or tags were removed: their copies in memory are dropped
    pin_changes   a pin, or an image that a pin matches, has changed: pinned content is computed again
    access        a token was revoked, or users have changed: what was remembered for a client is dropped
    pushes        a tag of a hosted repository was moved: what was remembered of such tags is dropped

A number is drawn at random, not counted up. So two processes that change a number at once need no lock, and
any change that a process sees differs from the number it saw before.
"""

import mmap
import os
import secrets
import struct
from contextlib import suppress
from pathlib import Path

# Native 64-bit numbers: an aligned one is read and written in one piece.
LAYOUT = struct.Struct("=QQQQ")


class Epoch:
    """The numbers of one cache folder. Any thread may call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        # On a disk that cannot be written, this process has numbers of its own.
        self._numbers: memoryview[int] | list[int] = [0, 0, 0, 0]
        self.reopen()

    def reopen(self) -> None:
        """Map the file of that name, which may have been removed and recreated."""
        with suppress(OSError):
            self._map = map_shared(self._path, LAYOUT.size)
            # The old mapping is freed with the last thread that reads it.
            self._numbers = memoryview(self._map).cast("Q")

    def removals(self) -> int:
        """Return a number that stays equal as long as nothing is removed."""
        return self._numbers[0]

    def pin_changes(self) -> int:
        """Return a number that stays equal as long as pinned content does not change."""
        return self._numbers[1]

    def access_changes(self) -> int:
        """Return a number that stays equal as long as no client loses a right."""
        return self._numbers[2]

    def pushes(self) -> int:
        """Return a number that stays equal as long as no tag of a hosted repository moves."""
        return self._numbers[3]

    def note_removal(self) -> None:
        """Tell all processes that something was removed."""
        self._numbers[0] = secrets.randbits(64)

    def note_pin_change(self) -> None:
        """Tell all processes that pinned content has changed."""
        self._numbers[1] = secrets.randbits(64)

    def note_access_change(self) -> None:
        """Tell all processes that a client may have lost a right."""
        self._numbers[2] = secrets.randbits(64)

    def note_push(self) -> None:
        """Tell all processes that a tag of a hosted repository was moved."""
        self._numbers[3] = secrets.randbits(64)

    def close(self) -> None:
        """Unmap the file; later readers see the last numbers."""
        numbers = self._numbers
        if isinstance(numbers, memoryview):
            self._numbers = list(numbers)
            numbers.release()
            if self._map is not None:
                self._map.close()


def map_shared(path: Path, size: int) -> mmap.mmap:
    """Map a file of `size` bytes that all processes of the mirror write, created if it is new. OSError."""
    descriptor = open_shared(path)
    try:
        # Allocated first: a page that a full disk cannot back kills the process that writes it (SIGBUS).
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def open_shared(path: Path) -> int:
    """Open a small file that all processes of the mirror write, created if it is new; return its descriptor.

    The file belongs to the owner of the folder: the mirror's own user must be able to open a file that root's
    command created.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another process has just created it
        return os.open(path, flags)
    else:
        if os.geteuid() == 0:
            owner = os.stat(path.parent)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor
