"""Errors of the disk end at this package's border."""

import sqlite3

import diskcache
import pytest

from mirror.store.errors import StoreError, translated


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "No space left"),
        (sqlite3.DatabaseError("malformed"), "malformed"),
        (diskcache.Timeout(), "locked by another process"),
    ],
)
def test_what_a_disk_says_is_a_store_error(error: Exception, message: str) -> None:
    """With what was being done, and the cause."""
    with pytest.raises(StoreError, match=f"write x: .*{message}") as raised, translated("write x"):
        raise error
    assert raised.value.__cause__ is error


def test_other_errors_are_bugs() -> None:
    """And pass as they are."""
    with pytest.raises(KeyError), translated("x"):
        raise KeyError
