"""What goes wrong with a disk, translated once at the border of this package."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import diskcache


class StoreError(Exception):
    """The cache folder could not be read or written; the message says which operation and why."""


class NoRoom(StoreError):
    """There is not as much room as this one blob takes; others may well fit. `size` in bytes."""

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class PartialLost(StoreError):
    """What another process was filling went away; nothing is known to be wrong with the disk."""


class ShuttingDown(StoreError):
    """The mirror stops: nothing is wrong with the disk."""


class PinTooLarge(StoreError):
    """With this pin more would have to be kept than there is room for. All in bytes.

    `used` by the pins there are, `asked` by this one besides, `allowed` for all of them.
    """

    def __init__(self, used: int, asked: int, allowed: int) -> None:
        super().__init__(f"pins use {used} bytes, {asked} more are asked for, {allowed} are allowed")
        self.used = used
        self.asked = asked
        self.allowed = allowed


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn operating system and SQLite errors into StoreError, so that neither is known above `store`."""
    try:
        yield
    except diskcache.Timeout as error:
        raise StoreError(f"{doing}: the index is locked by another process") from error
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{doing}: {error}") from error


def describe(function: Callable[..., object]) -> str:
    """Return the words for what `function` does, as error messages begin with them."""
    return getattr(function, "__name__", "disk").strip("_").replace("_", " ")
