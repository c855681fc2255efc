"""The retention class of a blob: `evictable`, or `retained` while a hosted repository links to it.

The class is on the blob's entry, where an eviction sees it: diskcache's `access_count`, which nothing else
uses here, is 0 for an evictable blob. It is written before the link is, and taken back after the last link
is gone, so that a crash in between leaves a blob that is kept for too long, and never one that is linked and
can be evicted. `registry-mirror gc` and `verify` put the first right (`store.hosted.agreement`).
"""

from collections.abc import Callable, Collection, Iterable, Sequence

from mirror.store.metadata.database import Database

# A table and triggers count what is retained: the quota asks for the sum at each adoption.
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS Retained"
    " (id INTEGER PRIMARY KEY CHECK (id = 0), bytes INTEGER, blobs INTEGER)",
    "INSERT OR IGNORE INTO Retained VALUES (0, 0, 0)",
    "CREATE TRIGGER IF NOT EXISTS retained_insert AFTER INSERT ON Cache WHEN NEW.access_count > 0"
    " BEGIN UPDATE Retained SET bytes = bytes + NEW.size, blobs = blobs + 1; END",
    "CREATE TRIGGER IF NOT EXISTS retained_delete AFTER DELETE ON Cache WHEN OLD.access_count > 0"
    " BEGIN UPDATE Retained SET bytes = bytes - OLD.size, blobs = blobs - 1; END",
    "CREATE TRIGGER IF NOT EXISTS retained_begin AFTER UPDATE OF access_count ON Cache"
    " WHEN OLD.access_count = 0 AND NEW.access_count > 0"
    " BEGIN UPDATE Retained SET bytes = bytes + NEW.size, blobs = blobs + 1; END",
    "CREATE TRIGGER IF NOT EXISTS retained_end AFTER UPDATE OF access_count ON Cache"
    " WHEN OLD.access_count > 0 AND NEW.access_count = 0"
    " BEGIN UPDATE Retained SET bytes = bytes - OLD.size, blobs = blobs - 1; END",
)

# SQL: the condition for blobs that an eviction may remove.
EVICTABLE = "access_count = 0"

# Digests in one statement.
ROWS = 500


def no_digest(_: Sequence[str]) -> Collection[str]:
    """Return no digest: without hosted registries nothing is retained."""
    return ()


class Retention:
    """The classes of the blobs of one store. Every method blocks.

    `hosted_among` returns those of some digests, as text, that hosted repositories link: what they link is
    retained from its first moment in the store.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.hosted_among: Callable[[Sequence[str]], Collection[str]] = no_digest

    def prepare(self) -> None:
        """Make evictions find what they may remove without a look at all that is retained."""
        self._database.cache._sql(
            f"CREATE INDEX IF NOT EXISTS Cache_evictable ON Cache (access_time) WHERE {EVICTABLE}"
        )

    def note_added(self, digests: Sequence[str], retained: Collection[str] = ()) -> None:
        """Give new entries their class, in the transaction that adds them. `retained`: for certain."""
        others = [each for each in digests if each not in retained]
        if wanted := {*retained, *(self.hosted_among(others) if others else ())}:
            self._set(wanted, 1)

    def retain(self, digests: Iterable[str]) -> set[str]:
        """Retain blobs from now on; return those that are not here."""
        wanted = set(digests)
        here = self._classes(wanted)
        # A blob that is evicted in this moment is not here when its class is to be written.
        if changed := {digest for digest, count in here.items() if not count}:
            self._set(changed, 1)
            here = self._classes(wanted)
        return wanted - here.keys()

    def release(self, digests: Iterable[str]) -> None:
        """Let evictions have blobs again."""
        self._set(set(digests), 0)

    def retained_among(self, digests: Iterable[str]) -> set[str]:
        """Return those of the digests that are here, and retained."""
        return {digest for digest, count in self._classes(set(digests)).items() if count}

    def retained_after(self, digest: str, limit: int) -> list[str]:
        """Return up to `limit` digests of retained blobs, in order, that sort after `digest`."""
        rows = self._database.cache._sql(
            f"SELECT key FROM Cache WHERE key > ? AND NOT {EVICTABLE} ORDER BY key LIMIT ?",  # noqa: S608  # ours
            (digest, limit),
        ).fetchall()
        return [str(key) for (key,) in rows]

    def totals(self) -> tuple[int, int]:
        """Return bytes and number of the retained blobs."""
        found = self._database.cache._sql("SELECT bytes, blobs FROM Retained").fetchone()
        return (0, 0) if found is None else (int(found[0]), int(found[1]))

    def _classes(self, digests: Collection[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for some in _batches(digests):
            marks = ",".join("?" * len(some))
            rows = self._database.cache._sql(
                f"SELECT key, access_count FROM Cache WHERE key IN ({marks})",  # noqa: S608  # marks only
                some,
            )
            found.update((str(key), int(count)) for key, count in rows)
        return found

    def _set(self, digests: Collection[str], count: int) -> None:
        for some in _batches(digests):
            marks = ",".join("?" * len(some))
            self._database.cache._sql(
                f"UPDATE Cache SET access_count = ? WHERE key IN ({marks}) AND access_count <> ?",  # noqa: S608
                (count, *some, count),
            )


def _batches(digests: Collection[str]) -> Iterable[list[str]]:
    ordered = sorted(digests)
    return (ordered[start : start + ROWS] for start in range(0, len(ordered), ROWS))
