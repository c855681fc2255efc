"""Trouble: what kind it is, told once, and left alone until somebody finds that it is over."""

import errno
import sqlite3

import diskcache
import pytest
from structlog.testing import capture_logs

from mirror.store.errors import NoRoom, StoreError
from mirror.store.health import ADVICE, TOLD_SECONDS, Kind, Side, Troubles, kind_of

FULL = OSError(errno.ENOSPC, "No space left on device")


def from_sqlite(name: str, message: str = "words") -> sqlite3.Error:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FULL, Kind.FULL),
        (OSError(errno.EDQUOT, "quota"), Kind.FULL),
        (OSError(errno.EROFS, "read-only"), Kind.READ_ONLY),
        (PermissionError(errno.EACCES, "no"), Kind.DENIED),
        (OSError(errno.EIO, "io"), Kind.BROKEN),
        (FileNotFoundError(errno.ENOENT, "no"), Kind.GONE),
        (from_sqlite("SQLITE_FULL"), Kind.FULL),
        (from_sqlite("SQLITE_READONLY_DBMOVED"), Kind.GONE),
        (from_sqlite("SQLITE_IOERR_WRITE"), Kind.BROKEN),
        (from_sqlite("SQLITE_NOTADB"), Kind.CORRUPT),
        (from_sqlite("SQLITE_CORRUPT"), Kind.CORRUPT),
        (from_sqlite("SQLITE_MISUSE"), Kind.OTHER),
        (diskcache.Timeout(), Kind.BUSY),
        (OSError(errno.EMFILE, "many"), Kind.OTHER),
        (StoreError("words only"), Kind.OTHER),
    ],
)
def test_what_kind_it_is(error: Exception, kind: Kind) -> None:
    """By numbers and names, not by words; also when it was translated."""
    assert kind_of(error) is kind
    translated = StoreError("translated")
    translated.__cause__ = error
    assert kind_of(translated) is kind


def test_what_the_disk_said_first_counts() -> None:
    """diskcache's own ROLLBACK fails after SQLite's, and it hides what made BEGIN fail."""
    rollback = from_sqlite("SQLITE_ERROR", "cannot rollback - no transaction is active")
    rollback.__context__ = from_sqlite("SQLITE_FULL")
    assert kind_of(rollback) is Kind.FULL
    hidden = diskcache.Timeout()
    hidden.__context__, hidden.__suppress_context__ = from_sqlite("SQLITE_READONLY"), True
    assert kind_of(hidden) is Kind.READ_ONLY


def test_it_is_left_alone_until_it_is_well() -> None:
    """One side does not speak for the others."""
    troubles = Troubles(lambda: 5.0)
    assert troubles.tried(Side.BOOKS, "nothing", lambda: "a link") == "a link"

    def broken() -> str:
        raise FULL

    assert troubles.tried(Side.BOOKS, "nothing", broken) == "nothing"
    assert troubles.tried(Side.BOOKS, "nothing", lambda: "a link") == "nothing"
    assert troubles.tried(Side.BLOBS, "nothing", lambda: "a blob") == "a blob"
    (trouble,) = troubles.all()
    assert (trouble.kind, trouble.since, trouble.advice) == (Kind.FULL, 5.0, ADVICE[Kind.FULL])
    troubles.well(Side.BOOKS)
    assert (troubles.all(), troubles.off(Side.BOOKS)) == ([], False)


def test_it_is_told_once() -> None:
    """Not for each request, nor each time it comes back within minutes; its end is told too."""
    now = [0.0]
    troubles = Troubles(lambda: now[0])
    with capture_logs() as lines:
        for _ in range(3):
            troubles.note(Side.WRITING, FULL)
        troubles.well(Side.WRITING)
        troubles.well(Side.WRITING)
        troubles.note(Side.WRITING, FULL)
        troubles.well(Side.WRITING)
        now[0] += TOLD_SECONDS
        troubles.note(Side.WRITING, FULL)
    assert [line["log_level"] for line in lines] == ["error", "info", "info", "error"]
    assert lines[0]["to_do"] == ADVICE[Kind.FULL]


def test_one_large_blob_is_no_trouble() -> None:
    """Others fit."""
    troubles = Troubles()
    troubles.note(Side.WRITING, NoRoom("large", 5))
    assert troubles.all() == []
