"""The memory that the C library holds for this process, beyond what Python knows of.

Large blocks come and go with every piece of a body. glibc gives each of them back to the system at once, at
the price of a page fault for each page when the next one comes (55,000 for each GiB received), until it has
seen a block of that size freed (mallopt(3), M_MMAP_THRESHOLD); from then on it keeps them (3,000), and gives
back nothing by itself. So it is taught to keep them while they are used, and told to let go now and then.
"""

import ctypes
from contextlib import suppress
from functools import cache

# The most that glibc can be taught to keep for reuse instead of giving it back (DEFAULT_MMAP_THRESHOLD_MAX).
MOST_KEPT = 32 * 1024 * 1024 - 64 * 1024


@cache
def keep_buffers() -> None:
    """Make what bodies are received into be used again. Once: a second block of that size would be kept."""
    bytearray(MOST_KEPT)


def trim_heap() -> None:
    """Give the system what is free; takes some milliseconds. Other C libraries do it by themselves."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
