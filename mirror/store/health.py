"""The health of the disk: which capabilities are down, why, since when, and what the operator can do.

Three capabilities can fail, each on its own: reading the index, so that links and tags are asked of the
upstream; looking up blobs, so that every blob is a miss; and writing, so that nothing is kept. A request does
not try what is down: `Store.recover` does, at every housekeeping run. A fault is logged once, and `/readyz`
and the metrics show it.
"""

import errno
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TypeVar

import diskcache
from msgspec import Struct

from mirror.store.errors import NoRoom, reason_of
from mirror.system.descriptors import are_exhausted
from mirror.util.log import get_logger
from mirror.util.throttle import Throttle

T = TypeVar("T")

log = get_logger(__name__)

# How long the same fault is not logged again, in seconds: a disk that is full now and then is one story.
REPEAT_SECONDS = 600.0

# How often a want of descriptors is logged, in seconds.
DESCRIPTORS_SECONDS = 60.0


class FaultKind(StrEnum):
    """Kinds of faults, told apart as far as the operator must do something else about each."""

    FULL = "full"
    READ_ONLY = "read_only"
    DENIED = "denied"
    BROKEN = "io_error"
    GONE = "gone"
    BUSY = "busy"
    CORRUPT = "corrupt"
    DESCRIPTORS = "descriptors"
    OTHER = "other"


class Capability(StrEnum):
    """The uses of the disk that can fail one by one; the values are words for the operator."""

    METADATA = "reading the index"
    BLOBS = "looking for blobs"
    WRITING = "writing"


ADVICE = {
    FaultKind.FULL: "make room on its file system, or set cache.max_size or cache.min_free to leave some",
    FaultKind.READ_ONLY: "mount its file system writable; the kernel's log says why it is not",
    FaultKind.DENIED: "give the folder and all in it to the user that runs the mirror",
    FaultKind.BROKEN: "see the kernel's log: the disk fails; replace it, or put cache.dir on another",
    FaultKind.GONE: "nothing, if it was removed on purpose: it is recreated; else mount its file system",
    FaultKind.BUSY: "find out what else locks its databases, a backup for instance, or why the disk is slow",
    FaultKind.CORRUPT: "nothing: the database is recreated; if it happens again, check disk and memory",
    FaultKind.DESCRIPTORS: "raise the limit of open files: LimitNOFILE in the unit, ulimit -Hn in a shell",
    FaultKind.OTHER: "see the reason",
}

_ERRNO = {
    errno.ENOSPC: FaultKind.FULL,
    errno.EDQUOT: FaultKind.FULL,
    errno.EROFS: FaultKind.READ_ONLY,
    errno.EACCES: FaultKind.DENIED,
    errno.EPERM: FaultKind.DENIED,
    errno.EIO: FaultKind.BROKEN,
    errno.EUCLEAN: FaultKind.BROKEN,
    errno.ENOENT: FaultKind.GONE,
    errno.ESTALE: FaultKind.GONE,
    errno.ENOTDIR: FaultKind.GONE,
    errno.EMFILE: FaultKind.DESCRIPTORS,
    errno.ENFILE: FaultKind.DESCRIPTORS,
}

# By the beginning of SQLite's names; the first match counts.
_SQLITE = {
    "SQLITE_FULL": FaultKind.FULL,
    "SQLITE_READONLY_DBMOVED": FaultKind.GONE,
    "SQLITE_READONLY": FaultKind.READ_ONLY,
    "SQLITE_PERM": FaultKind.DENIED,
    "SQLITE_AUTH": FaultKind.DENIED,
    "SQLITE_CANTOPEN": FaultKind.GONE,
    "SQLITE_IOERR": FaultKind.BROKEN,
    "SQLITE_BUSY": FaultKind.BUSY,
    "SQLITE_LOCKED": FaultKind.BUSY,
    "SQLITE_CORRUPT": FaultKind.CORRUPT,
    "SQLITE_NOTADB": FaultKind.CORRUPT,
    "SQLITE_ERROR": FaultKind.CORRUPT,  # "no such table": the database was emptied
}

# The errors by which a disk fails.
ERRORS = (OSError, sqlite3.Error, diskcache.Timeout)


class Fault(Struct, frozen=True):
    """A capability that is down. `since`: seconds since the epoch."""

    capability: Capability
    kind: FaultKind
    reason: str
    since: float

    @property
    def advice(self) -> str:
        """Return what the operator can do."""
        return ADVICE[self.kind]


class StoreHealth:
    """The present faults of one cache folder. Any thread may call."""

    def __init__(self, clock: Callable[[], float] = time.time, *, log_faults: bool = True) -> None:
        """`clock`: seconds since the epoch. `log_faults`: False for a second look at a folder in use."""
        self._clock = clock
        self._log_faults = log_faults
        self._lock = threading.Lock()
        self._faults: dict[Capability, Fault] = {}
        self._logged: dict[tuple[Capability, FaultKind], float] = {}
        self._want_of_descriptors = Throttle(DESCRIPTORS_SECONDS)

    def is_down(self, capability: Capability) -> bool:
        """Return whether the capability failed, and must not be used for requests."""
        return capability in self._faults

    def faults(self) -> list[Fault]:
        """Return the present faults."""
        return list(self._faults.values())

    def report_fault(self, capability: Capability, error: BaseException) -> FaultKind:
        """Mark a capability as down.

        One blob that is too large for the disk (NoRoom) is no fault, and neither is a want of descriptors:
        the disk is fine, and the next request may find a free one.
        """
        kind = kind_of(error)
        if isinstance(error, NoRoom):
            return kind
        if kind is FaultKind.DESCRIPTORS:
            with self._lock:
                times = self._want_of_descriptors.count()
            if times:
                log.error("no free descriptor for the cache", times=times, to_do=ADVICE[kind])
            return kind
        with self._lock:
            known = self._faults.get(capability)
            if known is not None and known.kind is kind:
                return kind
            now = self._clock()
            fault = self._faults[capability] = Fault(capability, kind, reason_of(root_of(error)), now)
            logged = self._logged.get((capability, kind))
            if not self._log_faults or (logged is not None and now - logged < REPEAT_SECONDS):
                return kind
            self._logged[capability, kind] = now
        log.error(
            "trouble with the cache folder, pulls go on without it",
            what=capability.value,
            kind=kind.value,
            reason=fault.reason,
            to_do=fault.advice,
        )
        return kind

    def clear_fault(self, capability: Capability) -> None:
        """Mark a capability as working."""
        if capability not in self._faults:
            return
        with self._lock:
            fault = self._faults.pop(capability, None)
        if fault is not None:
            what, seconds = capability.value, round(self._clock() - fault.since, 1)
            log.info("cache folder works again", what=what, kind=fault.kind.value, seconds=seconds)

    def attempt(self, capability: Capability, default: T, work: Callable[[], T]) -> T:
        """Return what `work` returns; `default` if the capability is down or fails now."""
        if self.is_down(capability):
            return default
        try:
            return work()
        except ERRORS as error:
            self.report_fault(capability, error)
            return default


def kind_of(error: BaseException) -> FaultKind:
    """Classify by the first exception in the cause chain that is recognised."""
    for each in _chain(error):
        if isinstance(each, sqlite3.Error):
            name = getattr(each, "sqlite_errorname", None) or ""
            kind = next((kind for start, kind in _SQLITE.items() if name.startswith(start)), FaultKind.OTHER)
            if name.startswith("SQLITE_CANTOPEN") and are_exhausted():  # SQLite does not give the errno
                return FaultKind.DESCRIPTORS
            # A failure ends the transaction in SQLite; that diskcache's ROLLBACK then fails says nothing.
            if "no transaction is active" not in str(each) and kind is not FaultKind.OTHER:
                return kind
        elif isinstance(each, OSError) and each.errno in _ERRNO:
            return _ERRNO[each.errno]
    return (
        FaultKind.BUSY
        if any(isinstance(each, diskcache.Timeout) for each in _chain(error))
        else FaultKind.OTHER
    )


def root_of(error: BaseException) -> BaseException:
    """Return the error to show: the first one in the cause chain that the disk gave."""
    return next((each for each in _chain(error) if isinstance(each, OSError | sqlite3.Error)), error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of the cause chain, from the first to the last."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found:
        found.append(each)
        each = each.__cause__ or each.__context__
    return reversed(found)
