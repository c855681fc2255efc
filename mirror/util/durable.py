"""Files that survive a power failure or a full disk, created without following links; a probe for room.

What another user has planted in a folder must not lead a write elsewhere: files are created with O_EXCL,
opened with O_NOFOLLOW, and changed by their descriptors.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

# linux/falloc.h: the file keeps its size, and what is in it.
FALLOC_FL_KEEP_SIZE = 1

# Bytes after which the disk is asked to begin.
WRITE_BACK_BYTES = 8 * 1024 * 1024


def create_file(path: Path, mode: int = 0o600) -> BinaryIO:
    """Create a file of this process's own and open it for writing.

    What has the name is removed: a file that a crash left, or a link, whose target stays as it is.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, flags, mode)
    return open(descriptor, "wb")


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading, unbuffered. OSError for a link. Does not wait for the writer of a pipe."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(path, flags), "rb", buffering=0)


def touch(path: Path) -> None:
    """Create an empty file, unless there is one. OSError for a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    os.close(os.open(path, flags, 0o600))


def move_into(folder: Path, path: Path, name: str) -> None:
    """Move a file into `folder`, created if it is new, as `name`. OSError if the folder is a link."""
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.rename(path, name, dst_dir_fd=descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file and its name durable. OSError."""
    with open_file(path) as file:
        os.fdatasync(file.fileno())
    sync_folder(path.parent)


def replace_file(path: Path, text: str) -> None:
    """Replace a small file atomically and durably: a reader finds the old text or the new one.

    The file belongs to the owner of the folder: the mirror's own user must be able to read a file that root's
    command wrote.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with create_file(fresh) as file:
            if os.geteuid() == 0:
                owner = os.stat(path.parent)
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(text.encode())
            file.flush()
            os.fdatasync(file.fileno())
        os.rename(fresh, path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def try_allocate(folder: Path, size: int) -> None:
    """Allocate a file of `size` bytes in `folder` and remove the file again. OSError if that fails."""
    path = folder / f"small-probe-{os.getpid()}-{threading.get_ident()}"
    try:
        with create_file(path) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    finally:
        path.unlink(missing_ok=True)


class WriteBack:
    """Written bytes of a file that the disk is asked to take in time, so that the sync at the end is short.

    The kernel would begin much later, and a large file's sync would wait for all of it.
    """

    def __init__(self, descriptor: int, offset: int = 0) -> None:
        self._descriptor = descriptor
        self._begun = offset
        self._at = offset

    def note(self, count: int) -> None:
        """Note that the next `count` bytes were written."""
        self._at += count
        if self._at - self._begun >= WRITE_BACK_BYTES:
            # Dirty pages are not dropped: the call begins to write them, and returns.
            os.posix_fadvise(self._descriptor, self._begun, self._at - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = self._at


def reserve(path: Path, size: int) -> None:
    """Reserve room for `size` more bytes at the end of a file, which stays as it is.

    Without effect on a file system that cannot (network file systems), or that is full. OSError if the file
    cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if 512 * status.st_blocks < status.st_size + size:
            _fallocate()(descriptor, FALLOC_FL_KEEP_SIZE, status.st_size, size)
    finally:
        os.close(descriptor)


@cache
def _fallocate() -> Callable[[int, int, int, int], int]:
    """Return fallocate(2). `os.posix_fallocate` would change the size, and write where it cannot allocate."""
    import ctypes  # only what writes needs this

    libc = ctypes.CDLL(None)
    function = getattr(libc, "fallocate64", None) or libc.fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return function
