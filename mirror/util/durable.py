"""Files that survive a power failure, files that are created without following links, and a probe for room.

What another user has planted in a folder must not lead a write elsewhere: files are created with O_EXCL,
opened with O_NOFOLLOW, and changed by their descriptors.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def create_file(path: Path, mode: int = 0o600) -> BinaryIO:
    """Create a file of this process's own and open it for writing.

    What has the name is removed: a file that a crash left, or a link, whose target stays as it is.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(path, flags, mode), "wb")


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
