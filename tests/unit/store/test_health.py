"""Health: kinds of faults, logged once, and capabilities that are down until they work again."""

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
        (OSError(errno.EMFILE, "many"), FaultKind.DESCRIPTORS),
        (OSError(errno.ENFILE, "many"), FaultKind.DESCRIPTORS),
        (from_sqlite("SQLITE_CANTOPEN"), FaultKind.GONE),
        (StoreError("words only"), FaultKind.OTHER),
    ],
)
def test_fault_kind_by_number_and_name(error: Exception, kind: FaultKind) -> None:
    """Errors are classified by numbers and names, not by words; also when they were translated."""
    assert kind_of(error) is kind
    translated = StoreError("translated")
    translated.__cause__ = error
    assert kind_of(translated) is kind


def test_fault_kind_is_that_of_the_first_error() -> None:
    """diskcache's own ROLLBACK fails after SQLite's, and hides the error that made BEGIN fail."""
    rollback = from_sqlite("SQLITE_ERROR", "cannot rollback - no transaction is active")
    rollback.__context__ = from_sqlite("SQLITE_FULL")
    assert kind_of(rollback) is FaultKind.FULL
    hidden = diskcache.Timeout()
    hidden.__context__, hidden.__suppress_context__ = from_sqlite("SQLITE_READONLY"), True
    assert kind_of(hidden) is FaultKind.READ_ONLY


def test_health_skips_a_capability_that_is_down() -> None:
    """One capability that is down does not take the others down."""
    health = StoreHealth(lambda: 5.0)
    assert health.attempt(Capability.METADATA, "nothing", lambda: "a link") == "a link"

    def broken() -> str:
        raise FULL

    assert health.attempt(Capability.METADATA, "nothing", broken) == "nothing"
    assert health.attempt(Capability.METADATA, "nothing", lambda: "a link") == "nothing"
    assert health.attempt(Capability.BLOBS, "nothing", lambda: "a blob") == "a blob"
    (fault,) = health.faults()
    assert (fault.kind, fault.since, fault.advice) == (FaultKind.FULL, 5.0, ADVICE[FaultKind.FULL])
    health.clear_fault(Capability.METADATA)
    assert (health.faults(), health.is_down(Capability.METADATA)) == ([], False)


def test_health_logs_a_fault_once() -> None:
    """Not for each request, nor each time the fault comes back within minutes; its end is logged too."""
    now = [0.0]
    health = StoreHealth(lambda: now[0])
    with capture_logs() as lines:
        for _ in range(3):
            health.report_fault(Capability.WRITING, FULL)
        health.clear_fault(Capability.WRITING)
        health.clear_fault(Capability.WRITING)
        health.report_fault(Capability.WRITING, FULL)
        health.clear_fault(Capability.WRITING)
        now[0] += REPEAT_SECONDS
        health.report_fault(Capability.WRITING, FULL)
    assert [line["log_level"] for line in lines] == ["error", "info", "info", "error"]
    assert lines[0]["to_do"] == ADVICE[FaultKind.FULL]


def test_health_is_not_affected_by_one_large_blob() -> None:
    """Smaller blobs fit."""
    health = StoreHealth()
    health.report_fault(Capability.WRITING, NoRoom("large"))
    assert health.faults() == []
