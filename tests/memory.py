"""Memory of a process that runs tests: imports stay, what the tests of a file used goes. A pytest plugin.

A worker imports every test file: hundreds of megabytes that live as long as the run. Python's collector need
not look at them, which takes half a second each time.
"""

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress

import pytest

# mallopt(3): the most arenas, which keep what ended threads have freed.
M_ARENA_MAX, ARENAS = -8, 2


def c_function(name: str) -> Callable[..., int]:
    """Return a function of glibc; with another C library, one that does nothing."""
    with suppress(OSError, AttributeError):
        return getattr(ctypes.CDLL(None), name)  # type: ignore[no-any-return]
    return lambda *_: 0


MALLOC_TRIM = c_function("malloc_trim")


def pytest_configure() -> None:
    c_function("mallopt")(M_ARENA_MAX, ARENAS)
    gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what has been collected out of the collector's sight."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Return free memory to the system behind the last test of a file.

    glibc does so by itself only for large blocks, and no longer after it has seen some of them freed.
    """
    if nextitem is not None and nextitem.path != item.path:
        MALLOC_TRIM(0)
