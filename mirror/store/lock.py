"""Who does what among all processes of this machine: `flock`, freed by the kernel on any death."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.invalidation import open_shared


def lock_path(digest: Digest, folder: Path) -> Path:
    """The file that is locked by who fills `digest`; for a blob of some size it is the chunk map too."""
    return folder / f"{digest.algorithm}-{digest.encoded}.map"


def data_path(digest: Digest, folder: Path) -> Path:
    """The file that a fill of `digest` writes."""
    return folder / f"{digest.algorithm}-{digest.encoded}.data"


def try_lock(path: Path) -> int | None:
    """Lock `path`, creating it, and return its descriptor (read-write); None when another process has it.

    The holder may unlink the file when done. Whoever opened it before and locks it after would hold a
    lock on a name that is gone, so the name is looked at again once the lock is had.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if is_name_of(path, descriptor):
            return descriptor
        os.close(descriptor)


def try_lock_folder(folder: Path) -> int | None:
    """Lock a folder, which needs no room on the disk; its descriptor, or None when another process has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def lock_shared(descriptor: int) -> None:
    """Say that a file is being read, until this descriptor and all copies of it are closed.

    Not where that cannot be said, as on some network file systems, or somebody is removing it (`unread`):
    what is open can be read all the same.
    """
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextmanager
def lock_if_unread(path: Path) -> Iterator[bool | None]:
    """Whether nobody reads the file, in whatever process; None where that cannot be told.

    Whoever opens it while this is held does not count any more.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        yield True if isinstance(error, FileNotFoundError) else None
        return
    try:
        yield _is_free(descriptor)
    finally:
        os.close(descriptor)


def _is_free(descriptor: int) -> bool | None:
    """Lock the open file, if nobody else has; None where files of this kind cannot be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_name_of(path: Path, descriptor: int) -> bool:
    """Whether `path` still is the name of the open file."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold `path` alone among all threads and processes; waits for it."""
    descriptor = open_shared(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
