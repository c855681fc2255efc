"""What is wrong with the disk, if anything is: told once, shown to the operator, and left alone meanwhile.

Three things can be out of order, each on its own: the books, so that links and tags are asked of the
upstream; the entries of the blobs, so that nothing is found here; and writing, so that nothing is kept. As
long as one of them is, it is not tried again for every request: `Store.recover` does that, now and then.
"""

import errno
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import diskcache

from mirror.store.errors import NoRoom
from mirror.util.log import get_logger

T = TypeVar("T")

log = get_logger(__name__)

# The same trouble is not told again for this long, in seconds: a disk that is full now and then is one story.
TOLD_SECONDS = 600.0


class FaultKind(StrEnum):
    """What is wrong, as far as the operator has to do something else for each."""

    FULL = "full"
    READ_ONLY = "read_only"
    DENIED = "denied"
    BROKEN = "io_error"
    GONE = "gone"
    BUSY = "busy"
    CORRUPT = "corrupt"
    OTHER = "other"


class Capability(StrEnum):
    """What is not done while there is trouble with it."""

    METADATA = "reading the books"
    BLOBS = "looking for blobs"
    WRITING = "writing"


ADVICE = {
    FaultKind.FULL: "make room on its file system, or set cache.max_size or cache.min_free so that some is left",
    FaultKind.READ_ONLY: "mount its file system for writing; see the kernel's log for why it is not",
    FaultKind.DENIED: "give the folder and all in it to the user this mirror runs as",
    FaultKind.BROKEN: "see the kernel's log: the disk fails; replace it, or put cache.dir on another",
    FaultKind.GONE: "nothing, if it was removed on purpose: it is made anew; else mount its file system",
    FaultKind.BUSY: "find out what else holds its databases, a backup for instance, or why the disk is so slow",
    FaultKind.CORRUPT: "nothing: the database is made anew; if it happens again, check disk and memory",
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
}

# By the beginning of SQLite's names; the first that fits counts.
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
    "SQLITE_ERROR": FaultKind.CORRUPT,  # "no such table": somebody emptied it
}

# What the disk can say.
ERRORS = (OSError, sqlite3.Error, diskcache.Timeout)


@dataclass(frozen=True, slots=True)
class Fault:
    """`since`: seconds since the epoch."""

    capability: Capability
    kind: FaultKind
    reason: str
    since: float

    @property
    def advice(self) -> str:
        return ADVICE[self.kind]


class StoreHealth:
    """Used from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since the epoch."""
        self._clock = clock
        self._lock = threading.Lock()
        self._now: dict[Capability, Fault] = {}
        self._told: dict[tuple[Capability, FaultKind], float] = {}

    def is_down(self, side: Capability) -> bool:
        """Whether it is to be left alone."""
        return side in self._now

    def faults(self) -> list[Fault]:
        return list(self._now.values())

    def report_fault(self, side: Capability, error: BaseException) -> FaultKind:
        """It failed. One blob that is too large for the disk is no trouble with the disk."""
        kind = kind_of(error)
        if isinstance(error, NoRoom):
            return kind
        with self._lock:
            known = self._now.get(side)
            if known is not None and known.kind is kind:
                return kind
            now = self._clock()
            trouble = self._now[side] = Fault(side, kind, str(root_of(error)), now)
            told = self._told.get((side, kind))
            if told is not None and now - told < TOLD_SECONDS:
                return kind
            self._told[side, kind] = now
        log.error(
            "trouble with the cache folder, pulls go on without it",
            what=side.value,
            kind=kind.value,
            reason=trouble.reason,
            to_do=trouble.advice,
        )
        return kind

    def clear_fault(self, side: Capability) -> None:
        """It works."""
        if side not in self._now:
            return
        with self._lock:
            trouble = self._now.pop(side, None)
        if trouble is not None:
            seconds = round(self._clock() - trouble.since, 1)
            log.info("cache folder works again", what=side.value, kind=trouble.kind.value, seconds=seconds)

    def attempt(self, side: Capability, otherwise: T, work: Callable[[], T]) -> T:
        """What `work` returns; `otherwise` when the disk does not let it, or is left alone."""
        if self.is_down(side):
            return otherwise
        try:
            return work()
        except ERRORS as error:
            self.report_fault(side, error)
            return otherwise


def kind_of(error: BaseException) -> FaultKind:
    """Of the first of the errors that led to this one that tells."""
    for each in _chain(error):
        if isinstance(each, sqlite3.Error):
            name = getattr(each, "sqlite_errorname", None) or ""
            kind = next((kind for start, kind in _SQLITE.items() if name.startswith(start)), FaultKind.OTHER)
            # After a failure SQLite has ended the transaction, and diskcache's own ROLLBACK fails: no news.
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
    """The error to show: what the disk said first."""
    return next((each for each in _chain(error) if isinstance(each, OSError | sqlite3.Error)), error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The errors from the first to the last."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found:
        found.append(each)
        each = each.__cause__ or each.__context__
    return reversed(found)
