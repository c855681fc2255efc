"""The page cache: which bytes of a file are in memory."""

import os
from typing import BinaryIO

# Distance of samples, in bytes: Linux reads, and so drops, as much together (read_ahead_kb of most disks).
SAMPLE_BYTES = 128 * 1024


def resident(file: BinaryIO, offset: int, stop: int) -> int:
    """Return how far the bytes from `offset` up to `stop` are in the page cache, by samples.

    The result is the last sample found: nothing is known of the bytes between it and the first one missing.
    On a file system that does not tell (EOPNOTSUPP: tmpfs, NFS) no bytes count as cached.
    """
    descriptor, byte, at = file.fileno(), [bytearray(1)], offset
    try:
        while at < stop:
            os.preadv(descriptor, byte, at, os.RWF_NOWAIT)
            offset = at
            at += SAMPLE_BYTES
        os.preadv(descriptor, byte, stop - 1, os.RWF_NOWAIT)
    except OSError:  # EAGAIN, or an error that the reading thread will meet too
        return offset
    return stop
