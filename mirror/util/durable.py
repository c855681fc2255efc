"""Files that survive a power failure, and a probe for room on a disk."""

import os
import threading
from contextlib import suppress
from pathlib import Path


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
        with open(fresh, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            if os.geteuid() == 0:
                owner = os.stat(path.parent)
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(text)
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
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    finally:
        path.unlink(missing_ok=True)
