"""Errors of the disk end at this package's border."""

import errno
import sqlite3

import diskcache
import pytest

from mirror.store.errors import StoreError, reason_of, translated


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "No space left"),
        (sqlite3.DatabaseError("malformed"), "malformed"),
        (diskcache.Timeout(), "locked by another process"),
    ],
)
def test_disk_errors_become_store_errors(error: Exception, message: str) -> None:
    """The message has the operation and the reason, without a number; the cause is kept."""
    with pytest.raises(StoreError, match=f"write x: .*{message}") as raised, translated("write x"):
        raise error
    assert raised.value.__cause__ is error


def test_other_errors_pass_through() -> None:
    """An error that is not the disk's is a bug, and stays as it is."""
    with pytest.raises(KeyError), translated("x"):
        raise KeyError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EACCES, "Permission denied", "/srv/cache"), "Permission denied: /srv/cache"),
        (OSError("a foreign row"), "a foreign row"),
        (sqlite3.OperationalError("disk I/O error"), "disk I/O error"),
        (diskcache.Timeout(), "Timeout"),
    ],
)
def test_reason_of_an_error_has_no_number(error: Exception, reason: str) -> None:
    """Operators get words, and the file if there is one."""
    assert reason_of(error) == reason
