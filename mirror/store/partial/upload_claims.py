"""Room and number of the uploads that are open: what quotas allow beside what is held already.

Each worker knows what its own requests will bring, and reads the rest from the sizes of the files, at most
once a second; before it refuses anything it reads them again. Uploads that nobody continues give way.
"""

import threading
import time
from collections.abc import Mapping, Sequence

from mirror.oci.reference import Repository
from mirror.store.partial.upload_files import (
    UploadFiles,
    by_owner,
    largest_of_client,
    of_client,
    prefix_of,
)

# Time, in seconds, after which a session that is not used gives way to others: clients that lost their
# connection come back within one minute, and forget some sessions.
IDLE_SECONDS = 300.0

# Time, in seconds, for which the sizes of the files are remembered; and how many times as long as reading
# them took, so that a full folder costs a tenth of a processor at most.
SIZES_SECONDS, SIZES_FACTOR = 1.0, 10.0

# One repository, and one client, has a quarter of a registry's sessions at most, or this number if that is
# more: a client that may push to many repositories keeps nobody else out.
SHARES, LEAST_SHARE = 4, 100

# Time, in seconds, after which a session gives way to a client that has fewer, where all are open: pushes
# pause for less between their requests.
PAUSE_SECONDS = 5.0


class UploadClaims:
    """The claims of the open uploads of one cache folder. Every method blocks."""

    def __init__(self, files: UploadFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._sizes: dict[str, tuple[int, float]] = {}  # size and last use of each session
        self._coming: dict[str, int] = {}  # sizes that the uploads of this process's requests will have
        self._read_at, self._read_took = float("-inf"), 0.0

    def admit(self, repository: Repository, most: int, client: str) -> str:
        """Return "" if repository and client may have a further session, where the registry has `most`.

        Otherwise return who has too many: "client", "repository" or "registry". Where all of a repository or
        registry are open, an idle one gives way, and else one of the client that has the most.
        """
        names = self._files.names(repository.upstream)
        mine = [each for each in names if each.startswith(prefix_of(str(repository)))]
        begun = of_client(names, client) if client else []
        share = min(most, max(LEAST_SHARE, most // SHARES))
        is_full = len(mine) >= share
        if len(begun) >= share:
            own = sorted(set(begun).intersection(mine)) if is_full else begun
            return "" if self._give_way([own], [], client) else "client"
        if is_full:
            return "" if self._give_way([mine], mine, client) else "repository"
        if len(names) >= most:
            return "" if self._give_way(by_owner(names), names, client) else "registry"
        return ""

    def _give_way(self, idle: Sequence[Sequence[str]], crowd: Sequence[str], client: str) -> bool:
        """End an idle session, or the oldest one in `crowd` of the client with the most; return whether.

        That one must have two more than `client`: nobody changes places with the next one.
        """
        now = time.time()
        if any(self._files.end_oldest(group, now - IDLE_SECONDS) for group in idle):
            return True
        greedy = largest_of_client(crowd)
        if len(greedy) < len(of_client(crowd, client)) + 2:
            return False
        return self._files.end_oldest(greedy, now - PAUSE_SECONDS)

    def add(self, name: str) -> None:
        """Note a new session."""
        with self._lock:
            self._sizes[name] = 0, time.time()

    def claim(self, name: str, size: int, left: Mapping[str, int]) -> tuple[str, int] | None:
        """Claim the `size` that a session will have, where all others may have the bytes of `left`.

        `left` is by registry, `office`, and repository, `office/app`. Returns None if there is room; else
        the one without, and the bytes of its other sessions.
        """
        with self._lock:
            if time.monotonic() - self._read_at > max(SIZES_SECONDS, SIZES_FACTOR * self._read_took):
                self._read()
            for scope, room in left.items():
                others = self._room(prefix_of(scope), name, room)
                if others > room:
                    return scope, others
            self._coming[name] = size
        return None

    def end(self, name: str) -> None:
        """Note that the request on a session has ended: the session has its file's size, or is gone."""
        with self._lock:
            self._coming.pop(name, None)
            self._sizes.pop(name, None)
            for found, status in self._files.statuses([name]):
                self._sizes[found] = status.st_size, status.st_mtime

    def _room(self, prefix: str, name: str, room: int) -> int:
        """Return the bytes of the other sessions, after idle ones gave way if that helps."""
        others = self._others(prefix, name)
        if others <= room:
            return others
        if time.monotonic() - self._read_at > SIZES_FACTOR * self._read_took:
            self._read()
            others = self._others(prefix, name)
        if others > room:
            self._make_way(prefix, name, others - room)
            others = self._others(prefix, name)
        return others

    def _others(self, prefix: str, name: str) -> int:
        return sum(
            max(size, self._coming.get(other, 0))
            for other, (size, _) in self._sizes.items()
            if other != name and other.startswith(prefix)
        )

    def _make_way(self, prefix: str, name: str, needed: int) -> None:
        """Remove idle sessions, the oldest first, if they have the bytes that are needed."""
        before = time.time() - IDLE_SECONDS
        idle = sorted(
            (used, other, size)
            for other, (size, used) in self._sizes.items()
            if size and used < before and other.startswith(prefix) and other not in {*self._coming, name}
        )
        if sum(size for _, _, size in idle) < needed:
            return
        for _, other, size in idle:
            if needed > 0 and self._files.end_idle(other, before):
                del self._sizes[other]
                needed -= size

    def _read(self) -> None:
        started = time.monotonic()
        found = self._files.statuses(self._files.names())
        self._sizes = {name: (status.st_size, status.st_mtime) for name, status in found}
        self._read_at = time.monotonic()
        self._read_took = self._read_at - started
