"""Writes that survive a power failure, and a probe whether there is room for one."""

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
    """Write a small file as a whole, so that there is never half of it, and have it on the disk.

    It belongs to the owner of the folder: what root's command writes, the mirror's own user must be able to
    read.
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
    """Whether a file of `size` bytes can be written there: OSError if not, and nothing is left of it."""
    path = folder / f"small-probe-{os.getpid()}-{threading.get_ident()}"
    try:
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    finally:
        path.unlink(missing_ok=True)
