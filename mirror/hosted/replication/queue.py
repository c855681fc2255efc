"""The queue of one target: a file for each tag or manifest that may differ there, so that a crash loses none.

    <cache folder>/replication/<target>/<hash of repository and reference>.json
                                        <the same>.work     while the worker is at it

An entry names what to look at, and not what to do: the worker brings the target to what is here by then. So
a repeated entry is none too many, and one file stands for any number of pushes of a tag.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from mirror.util.durable import open_file, replace_file

FOLDER = "replication"

# Most entries of one target: beyond that pushes are not queued, and the log says so.
MOST = 100_000

# Longest file, in bytes.
LONGEST = 16 * 1024


class ReplicationQueueFull(Exception):
    """There are MOST entries, and a further one is not taken."""


class ReplicaEntry(msgspec.Struct, frozen=True):
    """A tag, or a manifest by its digest. `queued` and `due`: seconds since the epoch.

    `deletes`: it was deleted, so that the target may delete it, too. A push that was refused is no such.
    """

    repository: str
    reference: str
    queued: float
    due: float = 0.0
    attempts: int = 0
    reason: str = ""
    deletes: bool = False

    @property
    def name(self) -> str:
        """The name of the entry's file."""
        return hashlib.sha256(f"{self.repository} {self.reference}".encode()).hexdigest()[:40]


class ReplicationQueue:
    """The entries of one target. Every method blocks. OSError."""

    def __init__(self, folder: Path, key: str) -> None:
        """`folder`: that of the cache."""
        self._above = folder / FOLDER
        self._folder = self._above / key

    def add(self, entry: ReplicaEntry) -> None:
        """Queue an entry durably, in place of an earlier one. Raises ReplicationQueueFull."""
        self._above.mkdir(mode=0o700, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._path(entry)
        if not path.exists() and self.count() >= MOST:
            raise ReplicationQueueFull
        replace_file(path, msgspec.json.encode(_with_deletion(entry, self._read(path))).decode())

    def count(self) -> int:
        """Return the number of entries."""
        with suppress(FileNotFoundError):  # each push counts, also where a hundred thousand wait
            return sum(each.endswith((".json", ".work")) for each in os.listdir(self._folder))
        return 0

    def entries(self) -> list[ReplicaEntry]:
        """Return all entries, the oldest first; one that cannot be read is removed."""
        found = {each.name: each for each in map(self._read, self._folder.glob("*.work")) if each}
        for each in filter(None, map(self._read, self._folder.glob("*.json"))):
            found[each.name] = _with_deletion(each, found.get(each.name))
        return sorted(found.values(), key=lambda each: each.queued)

    def begin(self, entry: ReplicaEntry) -> None:
        """Set an entry aside: a push from now on queues it again."""
        with suppress(FileNotFoundError):  # of a run that was killed: it is aside already
            self._path(entry).rename(self._path(entry, "work"))

    def finish(self, entry: ReplicaEntry) -> None:
        """Forget an entry that was begun."""
        self._path(entry, "work").unlink(missing_ok=True)

    def put_off(self, entry: ReplicaEntry, later: ReplicaEntry) -> None:
        """Queue an entry again, as `later`, unless a push has queued it since it was begun."""
        queued = self._read(self._path(entry))
        if queued is None or (later.deletes and not queued.deletes):
            kept = later if queued is None else _with_deletion(queued, later)
            replace_file(self._path(kept), msgspec.json.encode(kept).decode())
        self.finish(entry)

    def _read(self, path: Path) -> ReplicaEntry | None:
        try:
            with open_file(path) as file:
                return msgspec.json.decode(file.read(LONGEST) or b"", type=ReplicaEntry)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:
            path.unlink(missing_ok=True)
            return None

    def _path(self, entry: ReplicaEntry, suffix: str = "json") -> Path:
        return self._folder / f"{entry.name}.{suffix}"


def _with_deletion(entry: ReplicaEntry, earlier: ReplicaEntry | None) -> ReplicaEntry:
    """Return an entry that takes the place of an earlier one, whose deletion is not done yet."""
    return replace(entry, deletes=True) if earlier is not None and earlier.deletes else entry
