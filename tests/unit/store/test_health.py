"""Trouble: what kind it is, told once, and left alone until somebody finds that it is over."""

import errno
import sqlite3

import diskcache
import pytest
from structlog.testing import capture_logs

from mirror.store.errors import NoRoom, StoreError
from mirror.store.health import ADVICE, REPEAT_SECONDS, Capability, FaultKind, StoreHealth, kind_of

FULL = OSError(errno.ENOSPC, "No space left on device")


def from_sqlite(name: str, message: str = "words") -> sqlite3.Error:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FULL, FaultKind.FULL),
        (OSError(errno.EDQUOT, "quota"), FaultKind.FULL),
        (OSError(errno.EROFS, "read-only"), FaultKind.READ_ONLY),
        (PermissionError(errno.EACCES, "no"), FaultKind.DENIED),
        (OSError(errno.EIO, "io"), FaultKind.BROKEN),
        (FileNotFoundError(errno.ENOENT, "no"), FaultKind.GONE),
        (from_sqlite("SQLITE_FULL"), FaultKind.FULL),
        (from_sqlite("SQLITE_READONLY_DBMOVED"), FaultKind.GONE),
        (from_sqlite("SQLITE_IOERR_WRITE"), FaultKind.BROKEN),
        (from_sqlite("SQLITE_NOTADB"), FaultKind.CORRUPT),
        (from_sqlite("SQLITE_CORRUPT"), FaultKind.CORRUPT),
        (from_sqlite("SQLITE_MISUSE"), FaultKind.OTHER),
        (diskcache.Timeout(), FaultKind.BUSY),
        (OSError(errno.EMFILE, "many"), FaultKind.OTHER),
        (StoreError("words only"), FaultKind.OTHER),
    ],
)
def test_what_kind_it_is(error: Exception, kind: FaultKind) -> None:
    """By numbers and names, not by words; also when it was translated."""
    assert kind_of(error) is kind
    translated = StoreError("translated")
    translated.__cause__ = error
    assert kind_of(translated) is kind


def test_what_the_disk_said_first_counts() -> None:
    """diskcache's own ROLLBACK fails after SQLite's, and it hides what made BEGIN fail."""
    rollback = from_sqlite("SQLITE_ERROR", "cannot rollback - no transaction is active")
    rollback.__context__ = from_sqlite("SQLITE_FULL")
    assert kind_of(rollback) is FaultKind.FULL
    hidden = diskcache.Timeout()
    hidden.__context__, hidden.__suppress_context__ = from_sqlite("SQLITE_READONLY"), True
    assert kind_of(hidden) is FaultKind.READ_ONLY


def test_it_is_left_alone_until_it_is_well() -> None:
    """One side does not speak for the others."""
    troubles = StoreHealth(lambda: 5.0)
    assert troubles.attempt(Capability.METADATA, "nothing", lambda: "a link") == "a link"

    def broken() -> str:
        raise FULL

    assert troubles.attempt(Capability.METADATA, "nothing", broken) == "nothing"
    assert troubles.attempt(Capability.METADATA, "nothing", lambda: "a link") == "nothing"
    assert troubles.attempt(Capability.BLOBS, "nothing", lambda: "a blob") == "a blob"
    (trouble,) = troubles.faults()
    assert (trouble.kind, trouble.since, trouble.advice) == (FaultKind.FULL, 5.0, ADVICE[FaultKind.FULL])
    troubles.clear_fault(Capability.METADATA)
    assert (troubles.faults(), troubles.is_down(Capability.METADATA)) == ([], False)


def test_it_is_told_once() -> None:
    """Not for each request, nor each time it comes back within minutes; its end is told too."""
    now = [0.0]
    troubles = StoreHealth(lambda: now[0])
    with capture_logs() as lines:
        for _ in range(3):
            troubles.report_fault(Capability.WRITING, FULL)
        troubles.clear_fault(Capability.WRITING)
        troubles.clear_fault(Capability.WRITING)
        troubles.report_fault(Capability.WRITING, FULL)
        troubles.clear_fault(Capability.WRITING)
        now[0] += REPEAT_SECONDS
        troubles.report_fault(Capability.WRITING, FULL)
    assert [line["log_level"] for line in lines] == ["error", "info", "info", "error"]
    assert lines[0]["to_do"] == ADVICE[FaultKind.FULL]


def test_one_large_blob_is_no_trouble() -> None:
    """Others fit."""
    troubles = StoreHealth()
    troubles.report_fault(Capability.WRITING, NoRoom("large", 5))
    assert troubles.faults() == []
