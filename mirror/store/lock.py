"""File locks: which of this machine's processes fills, evicts or reads a file.

All of them are `flock`, which the kernel frees when a process dies: an exclusive lock for the process that
fills or evicts, shared locks for readers.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.invalidation import open_shared


def blob_key(digest: Digest) -> str:
    """Return the key of the lock for filling `digest`, which is also the stem of its partial's files."""
    return f"{digest.algorithm}-{digest.encoded}"


def name_key(name: str) -> str:
    """Return the key of a lock for something that is not a blob, a tag for instance.

    The key has the form of a digest's: earlier versions lock the same file, and a file that a crash leaves
    is found as an orphan.
    """
    return f"sha256-{hashlib.sha256(name.encode()).hexdigest()}"


def key_path(key: str, folder: Path) -> Path:
    """Return the file that is locked under `key`."""
    return folder / f"{key}.map"


def lock_path(digest: Digest, folder: Path) -> Path:
    """Return the file that a fill of `digest` locks. A partial keeps its chunk map in it."""
    return key_path(blob_key(digest), folder)


def data_path(digest: Digest, folder: Path) -> Path:
    """Return the file that a fill of `digest` writes."""
    return folder / f"{blob_key(digest)}.data"


def try_lock(path: Path) -> int | None:
    """Lock `path`, creating it, and return its descriptor (read-write); None if another process has the lock.

    The holder may unlink the file when done. A process that opened the file before and locks it afterwards
    would hold a lock on a name that is gone, so the name is checked again once the lock is held.
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
    """Lock a folder, which takes no room on the disk. Return as `try_lock`, the descriptor read-only."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def lock_shared(descriptor: int) -> None:
    """Mark a file as being read, until this descriptor and all its copies are closed.

    The mark is missing where the file system has no locks (some network file systems), or where an eviction
    holds the file (`lock_if_unread`): the open file is readable nevertheless.
    """
    try_lock_shared(descriptor)


def try_lock_shared(descriptor: int) -> bool:
    """Mark a file as `lock_shared`; return False if an eviction holds the file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def unlock(descriptor: int) -> None:
    """Take the mark from a file that stays open."""
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def lock_if_unread(path: Path) -> Iterator[bool | None]:
    """Lock the file if no process reads it. Yield whether it is unread; None where that cannot be known.

    A reader that opens the file while the lock is held is not waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        yield True if isinstance(error, FileNotFoundError) else None
        return
    try:
        yield _try_exclusive(descriptor)
    finally:
        os.close(descriptor)


def _try_exclusive(descriptor: int) -> bool | None:
    """Lock the open file if no other process has a lock on it; None where such files cannot be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_name_of(path: Path, descriptor: int) -> bool:
    """Return whether `path` is still the name of the open file."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock on `path` alone among all threads and processes. Waits for the lock."""
    descriptor = open_shared(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
