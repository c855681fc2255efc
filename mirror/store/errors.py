"""What goes wrong with a disk, translated once at the border of this package."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import diskcache


class StoreError(Exception):
    """The cache folder could not be read or written; the message says which operation and why."""


class NoRoom(StoreError):
    """There is not as much room as this one blob takes; others may well fit. `size` in bytes."""

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class ShuttingDown(StoreError):
    """The mirror stops: nothing is wrong with the disk."""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn operating system and SQLite errors into StoreError, so that neither is known above `store`."""
    try:
        yield
    except diskcache.Timeout as error:
        raise StoreError(f"{doing}: the index is locked by another process") from error
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{doing}: {error}") from error
