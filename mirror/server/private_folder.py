"""The private folder of a mirror's processes, and the removal of those that killed mirrors have left.

The parent and its workers hold a lock on a file in the folder, which the kernel frees with the last of them.
A folder without that file is none of this version, and stays: whether it is in use cannot be known.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path

PREFIX = "registry-mirror-"

# The file that is locked, and its name before it is: no name in temporary folders of other commands.
LOCK, NEW_LOCK = ".held-by-a-mirror", ".to-be-held"


@contextmanager
def private_folder(parent: str | None, known: str | None = None) -> Iterator[Path]:
    """Yield a folder that is removed behind the block: `known`, or a new one in `parent`.

    `parent`: None for that of temporary files. `known`: of the program before, at a handover.
    """
    if known is None:
        sweep(Path(parent or tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent) if known is None else known)
    lock: int | None = None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(OSError):  # where nothing can be locked, nothing is removed later
            lock = _hold(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def sweep(parent: Path) -> int:
    """Remove the folders in `parent` of mirrors of this user that are dead; return how many."""
    removed = 0
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with suppress(OSError):
                    removed += _remove_dead(Path(entry.path))
    return removed


def _hold(folder: Path) -> int:
    """Lock the folder for as long as the descriptor is open here, or in a process that inherits it."""
    with suppress(FileNotFoundError):
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        flock(descriptor, LOCK_SH)
        return descriptor
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder / NEW_LOCK, flags, 0o600)
    flock(descriptor, LOCK_SH)
    (folder / NEW_LOCK).rename(folder / LOCK)  # never there without being locked
    return descriptor


def _remove_dead(folder: Path) -> bool:
    """Remove a folder if it is this user's own, and no process holds it. Raises OSError."""
    itself = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(itself).st_uid != os.geteuid():
            return False
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        lock = os.open(LOCK, flags, dir_fd=itself)
        try:
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                return False
            flock(lock, LOCK_EX | LOCK_NB)
            if not os.path.samestat(os.fstat(itself), folder.lstat()):
                return False
            shutil.rmtree(folder)
        finally:
            os.close(lock)
    finally:
        os.close(itself)
    return True
