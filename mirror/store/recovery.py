"""The cache folder as such: layout and version, what can be used of it, and what is made anew.

Whatever was removed or is corrupt is made anew by the call that meets it, which then goes on.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from mirror.store.database import Database
from mirror.store.errors import StoreError, describe, translated
from mirror.store.health import ERRORS, Capability, FaultKind, StoreHealth, kind_of
from mirror.store.pins.manifest_journal import BOOKS_LOST
from mirror.util.durable import replace_file, try_allocate
from mirror.util.log import get_logger

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger(__name__)

# Of the layout: raised when an older mirror could not use what a newer one has written.
VERSION = 1

# While this file is there, the blobs have files that their database does not know: see `store.fsck`.
REBUILD = "rebuild"

# What goes with a database.
BLOBS_GONE = "the entries of the blobs, which are made anew too"
BOOKS_GONE = "what belongs to which image, which is asked again; what is pinned stays"

# What a disk must have room for before it counts as well again.
PROBE_BYTES = 1024 * 1024

# With these the mirror starts all the same, and passes through; the others are mistakes that want to be told.
BEARABLE = frozenset(
    {FaultKind.FULL, FaultKind.READ_ONLY, FaultKind.BROKEN, FaultKind.BUSY, FaultKind.CORRUPT}
)


class Recovery:
    """Of one folder with its databases, that of the blobs first."""

    def __init__(self, path: Path, databases: Sequence[Database], troubles: StoreHealth) -> None:
        self._path = path
        self._blobs, self._books = databases
        self._health = troubles
        self._lock = threading.Lock()
        self.on_repaired: Callable[[], object] = bool  # called when something was made anew

    def open(self) -> None:
        """Open or create everything. Whatever else fails than it may at other times ends the start."""
        try:
            self._make_folders()
            check_version(self._path)
        except OSError as error:
            self._bear(Capability.WRITING, error)
        for side, database in ((Capability.BLOBS, self._blobs), (Capability.METADATA, self._books)):
            try:
                if self._repaired(database) is None:
                    _ = database.cache
            except ERRORS as error:
                self._bear(side, error)
                self._health.report_fault(Capability.WRITING, error)

    def read_or(self, side: Capability, otherwise: T, work: Callable[[], T]) -> T:
        """As `StoreHealth.attempt`; once more where what was wrong could be mended."""
        found = self._health.attempt(side, otherwise, work)
        if self._health.is_down(side) and self._at_once(side):
            return self._health.attempt(side, otherwise, work)
        return found

    def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns, which writes; once more where what was wrong could be mended. StoreError."""
        with translated(describe(work)):
            try:
                return work(*args, **kwargs)
            except ERRORS as error:
                self.drop_connections()
                if not self._after(error):
                    raise
            return work(*args, **kwargs)

    def probe(self) -> None:
        """Try what is in trouble. Whatever works again is used again."""
        self.recreate_removed()
        self._try(Capability.METADATA, lambda: _read_something(self._books))
        self._try(Capability.BLOBS, lambda: _read_something(self._blobs))
        self._try(Capability.WRITING, self._write_something)

    def _try(self, side: Capability, work: Callable[[], object]) -> None:
        if not self._health.is_down(side):
            return
        try:
            work()
        except ERRORS as error:
            self.drop_connections()
            self._health.report_fault(side, error)
        else:
            self._health.clear_fault(side)

    def _write_something(self) -> None:
        """All the kinds of writing there are: a file with some room, and both databases."""
        try_allocate(self._path / "partial", PROBE_BYTES)
        for database in (self._blobs, self._books):
            with database.cache.transact():
                database.cache._sql("UPDATE Settings SET value = value WHERE key = 'count'")

    def can_write_files(self) -> bool:
        """Whether files can be written."""
        try:
            try_allocate(self._path / "partial", PROBE_BYTES)
        except OSError:
            return False
        return True

    def drop_connections(self) -> None:
        """Have this thread begin anew with both databases."""
        for database in (self._blobs, self._books):
            database.drop_connection()

    def _at_once(self, side: Capability) -> bool:
        """Whether what is wrong with reading was put right."""
        wrong = [each.kind for each in self._health.faults() if each.capability is side]
        database = self._books if side is Capability.METADATA else self._blobs
        if not set(wrong) & {FaultKind.GONE, FaultKind.CORRUPT} or not self._put_right([database]):
            return False
        self._health.clear_fault(side)
        return True

    def _after(self, error: BaseException) -> bool:
        """Whether what made writing fail was put right."""
        if kind_of(error) not in (FaultKind.GONE, FaultKind.CORRUPT):
            return False
        return self._put_right([self._blobs, self._books])

    def recreate_removed(self) -> bool:
        """Whether something had been removed, and was made anew. Costs a look at each."""
        if self._blobs.is_current() and self._books.is_current() and (self._path / "partial").is_dir():
            return False
        return self._put_right([])

    @property
    def needs_rebuild(self) -> bool:
        """Whether the blobs have files that their database does not know."""
        return (self._path / REBUILD).exists()

    def finish_rebuild(self) -> None:
        """All files have their entries."""
        (self._path / REBUILD).unlink(missing_ok=True)

    def _put_right(self, suspects: Sequence[Database]) -> bool:
        """Make anew what is gone, and those of `suspects` that are corrupt; whether there was something."""
        try:
            with self._alone():
                made = self._make_folders()
                if made:
                    check_version(self._path)
                moved = [each for each in (self._blobs, self._books) if not each.is_current()]
                for database in moved:
                    database.reopen()
                if self._books in moved:
                    (self._path / BOOKS_LOST).touch(mode=0o600)
                mended = [self._repaired(database) for database in suspects]
                anew = bool(made or moved or any(mended))
            if anew:
                self.on_repaired()
            return anew
        except ERRORS as error:
            self._health.report_fault(Capability.WRITING, error)
            return False

    def _repaired(self, database: Database) -> bool | None:
        """Set aside and made anew if it is corrupt; None when it could be opened, and was not looked at."""
        try:
            _ = database.cache
        except ERRORS as error:
            if kind_of(error) is not FaultKind.CORRUPT:
                raise
        else:
            if not self._health.faults():
                return None
            if database.is_sound():
                return False
        return self._made_anew(database)

    def _made_anew(self, database: Database) -> bool:
        lost, mark = (BLOBS_GONE, REBUILD) if database is self._blobs else (BOOKS_GONE, BOOKS_LOST)
        log.error("database corrupt, made anew", database=str(database.folder), lost=lost)
        # The mark first: what comes after a crash here must know.
        (self._path / mark).touch(mode=0o600)
        database.quarantine(self._path / "quarantine")
        _ = database.cache
        return True

    def _make_folders(self) -> bool:
        """Whether one of them was not there."""
        path = self._path
        ours = not path.exists() or (path / "books").is_dir() or not any(path.iterdir())
        made = False
        for each in (path, path / "blobs", path / "books", path / "partial"):
            made = made or not each.is_dir()
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        if ours:  # and not /srv, or a home, in which everybody else would lose their files
            os.chmod(path, 0o700)
        return made

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time, also of several processes: each then sees what the one before it has done."""
        with self._lock:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)

    def _bear(self, side: Capability, error: Exception) -> None:
        """Go on without. Raises `error` where that would hide a mistake."""
        if kind_of(error) not in BEARABLE:
            raise error
        self._health.report_fault(side, error)


def _read_something(database: Database) -> None:
    database.cache._sql("SELECT key FROM Cache ORDER BY key LIMIT 1").fetchall()


def check_version(path: Path) -> None:
    """Stamp a new folder. StoreError for a layout that is newer than this mirror."""
    stamp = path / "version"
    with suppress(FileNotFoundError):
        text = stamp.read_text().strip()
        found = int(text) if text.isascii() and text.isdigit() else None
        if found is not None and found > VERSION:
            raise StoreError(
                f"its layout is version {found}, and this mirror knows {VERSION}: it was used by a newer one."
                " Use that one, or another folder (--cache-dir), or remove this one and all in it"
            )
        if found is not None:
            return
    replace_file(stamp, f"{VERSION}\n")
