"""Errors of this package. Errors of the disk and of SQLite are translated here, once, at its border."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import diskcache

from mirror.util.tracebacks import reason_of as reason_of


class StoreError(Exception):
    """The cache folder could not be read or written; the message says which operation failed, and why."""


class NoRoom(StoreError):
    """One blob takes more room than the quota allows, whatever is evicted; smaller blobs may well fit."""


class PartialLost(StoreError):
    """The partial that another process was filling is gone; the disk itself may be fine."""


class ShuttingDown(StoreError):
    """The mirror stops; the disk is fine."""


class PinTooLarge(StoreError):
    """The pins would exceed the quota with one more pin. All in bytes.

    `used` by the present pins, `asked` by the new one besides, `allowed` for all of them.
    """

    def __init__(self, used: int, asked: int, allowed: int) -> None:
        super().__init__(f"pins use {used} bytes, {asked} more are asked for, {allowed} are allowed")
        self.used = used
        self.asked = asked
        self.allowed = allowed


@contextmanager
def translated(operation: str) -> Iterator[None]:
    """Turn errors of the operating system and of SQLite into StoreError, so that no caller knows either."""
    try:
        yield
    except diskcache.Timeout as error:
        raise StoreError(f"{operation}: the index is locked by another process") from error
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{operation}: {reason_of(error)}") from error


def describe(function: Callable[..., object]) -> str:
    """Return the words for what `function` does, as error messages begin with them."""
    return getattr(function, "__name__", "disk").strip("_").replace("_", " ")
