"""Files in the page cache, and out of it."""

import errno
import os
from pathlib import Path

import pytest


def drop(path: Path) -> None:
    """Drop the file from the page cache. Skip the test if the file system does not tell what is in it."""
    with path.open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                pytest.skip(f"the file system of {path} does not tell what is in the page cache")
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def is_resident(descriptor: int, start: int, stop: int) -> bool:
    """Tell whether every page of these bytes is in the page cache. Asking makes Linux begin to read them."""
    pages = range(start, stop, 4096)
    try:
        return all(os.preadv(descriptor, [bytearray(1)], at, os.RWF_NOWAIT) for at in pages)
    except BlockingIOError:
        return False
