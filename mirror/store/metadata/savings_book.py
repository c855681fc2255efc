"""The savings of a mirror by day: what was served from here, and what had to be fetched.

    <cache folder>/savings.db    a row for each day, upstream and repository; no loss but of the figures

All workers add to the same rows. After DETAILED days a day has its upstreams alone, and after KEPT days it
goes: the file stays small.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

FILE = "savings.db"

# Days with figures of each repository, and days that are kept at all.
DETAILED, KEPT = 100, 400

# Repositories that a day has, at most; further ones count for their upstream alone.
MOST_REPOSITORIES = 2000

# How long a worker waits for another one that writes, in seconds.
BUSY_SECONDS = 5.0

# What its methods raise.
SAVING_ERRORS = (OSError, sqlite3.Error)

TABLE = """
CREATE TABLE IF NOT EXISTS savings (
    day INTEGER, upstream TEXT, repository TEXT,
    requests INTEGER, hits INTEGER, saved INTEGER, missed INTEGER, received INTEGER, seconds REAL,
    PRIMARY KEY (day, upstream, repository)
) WITHOUT ROWID
"""

ADD = """
INSERT INTO savings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, upstream, repository) DO UPDATE SET
    requests = requests + excluded.requests, hits = hits + excluded.hits, saved = saved + excluded.saved,
    missed = missed + excluded.missed, received = received + excluded.received,
    seconds = seconds + excluded.seconds
"""

SUMS = "sum(requests), sum(hits), sum(saved), sum(missed), sum(received), sum(seconds)"


class Amounts(Struct):
    """Amounts of requests that brought content. `saved`: bytes sent that were not fetched for them.

    `missed`: bytes sent that were fetched for them, in `seconds`. `received`: bytes that came from upstreams.
    """

    requests: int = 0
    hits: int = 0
    saved: int = 0
    missed: int = 0
    received: int = 0
    seconds: float = 0.0

    def row(self) -> tuple[float, ...]:
        """Return the values in the order of the table."""
        return self.requests, self.hits, self.saved, self.missed, self.received, self.seconds


# The day since the epoch, the upstream, and the repository; "" for the upstream's own figures.
Place = tuple[int, str, str]


class SavingsBook:
    """The figures of one cache folder. Every method blocks, and raises OSError or sqlite3.Error."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def add(self, amounts: Mapping[Place, Amounts]) -> None:
        """Add amounts to the rows of all workers, and forget what is too old."""
        with self._opened() as book, book:
            today = max(day for day, _, _ in amounts)
            known = {
                name for (name,) in book.execute("SELECT repository FROM savings WHERE day = ?", (today,))
            }
            rows = []
            for (day, upstream, repository), each in amounts.items():
                name = repository if repository in known or len(known) < MOST_REPOSITORIES else ""
                known.add(name)
                rows.append((day, upstream, name, *each.row()))
            book.executemany(ADD, rows)
            self._forget(book, today)

    def days(self, since: int) -> list[tuple[int, Amounts]]:
        """Return the sums of each day from a day on, in order."""
        with self._opened() as book:
            rows = book.execute(
                f"SELECT day, {SUMS} FROM savings WHERE day >= ? GROUP BY day ORDER BY day",  # noqa: S608  # ours
                (since,),
            )
            return [(row[0], Amounts(*row[1:])) for row in rows]

    def upstreams(self, since: int) -> list[tuple[str, Amounts]]:
        """Return the sums of each upstream, those that saved most first."""
        with self._opened() as book:
            rows = book.execute(
                f"SELECT upstream, {SUMS} FROM savings WHERE day >= ? GROUP BY 1 ORDER BY sum(saved) DESC",  # noqa: S608  # ours
                (since,),
            )
            return [(row[0], Amounts(*row[1:])) for row in rows]

    def repositories(self, since: int, most: int) -> list[tuple[str, Amounts]]:
        """Return the sums of the repositories that saved most, `<upstream>/<repository>`."""
        with self._opened() as book:
            rows = book.execute(
                f"SELECT upstream || '/' || repository, {SUMS} FROM savings"  # noqa: S608  # ours
                " WHERE day >= ? AND repository != '' GROUP BY 1 ORDER BY sum(saved) DESC, 1 LIMIT ?",
                (since, most),
            )
            return [(row[0], Amounts(*row[1:])) for row in rows]

    def copy_to(self, target: Path) -> bool:
        """Copy the figures of one moment to a new file, while workers write; return whether there are any."""
        if not self._path.is_file():
            return False
        with self._opened() as book, closing(sqlite3.connect(target)) as copy:
            book.backup(copy)
        return True

    def _forget(self, book: sqlite3.Connection, today: int) -> None:
        old: Sequence[tuple[object, ...]] = book.execute(
            f"SELECT day, upstream, '', {SUMS} FROM savings"  # noqa: S608  # ours
            " WHERE day < ? AND repository != '' GROUP BY day, upstream",
            (today - DETAILED,),
        ).fetchall()
        if old:
            book.execute("DELETE FROM savings WHERE day < ? AND repository != ''", (today - DETAILED,))
            book.executemany(ADD, old)
        book.execute("DELETE FROM savings WHERE day < ?", (today - KEPT,))

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection. A file that is no database is replaced: it has figures, and nothing else."""
        try:
            book = self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._path.unlink(missing_ok=True)
            book = self._connect()
        with closing(book):
            yield book

    def _connect(self) -> sqlite3.Connection:
        book = sqlite3.connect(self._path, timeout=BUSY_SECONDS)
        try:
            book.execute(TABLE)
        except BaseException:
            book.close()
            raise
        return book
