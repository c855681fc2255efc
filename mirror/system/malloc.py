"""Tuning of glibc's malloc: few arenas, keep large buffers for reuse, return free memory now and then.

By default each thread gets an arena of its own, up to eight for each processor, and what one thread has freed
is of no use to another one: after 76,000 requests of all shapes, 44 MB of a worker were free blocks between
used ones, and more with every request.

Every piece of a body needs a large block. By default glibc returns each freed block to the system, and every
page of the next block costs a page fault (55,000 for each GiB received). After glibc has once seen a block of
that size freed (mallopt(3), M_MMAP_THRESHOLD), glibc keeps such blocks (3,000 page faults for each GiB) but
no longer returns free memory on its own. The mirror therefore raises the threshold at the first body and
trims the heap periodically.
"""

from contextlib import suppress
from functools import cache

# Upper limit of glibc's dynamic mmap threshold (DEFAULT_MMAP_THRESHOLD_MAX), less room for malloc's own
# header.
MAX_MMAP_THRESHOLD = 32 * 1024 * 1024 - 64 * 1024


# Arenas of a process, and the number of that option in <malloc.h>. Threads of Python mostly allocate in turn.
ARENAS, M_ARENA_MAX = 2, -8


def limit_arenas() -> None:
    """Have all threads share ARENAS; to be called before they start. Does nothing with other C libraries."""
    import ctypes  # 1 ms of the start

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


@cache
def keep_buffers() -> None:
    """Make glibc reuse receive buffers. Runs once: glibc would keep a second block of that size (32 MiB)."""
    bytearray(MAX_MMAP_THRESHOLD)


def trim_heap() -> None:
    """Return free memory to the system, in some milliseconds. Does nothing with other C libraries."""
    import ctypes  # 1 ms of the start

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
