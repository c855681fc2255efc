"""The files of uploads (`mirror.store.partial.upload`): their names, locks, sizes and removal."""

import hashlib
import os
import re
import secrets
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from mirror.oci.reference import Repository
from mirror.store.lock import is_name_of

FILE_NAME = re.compile(r"[0-9a-f]{32}-[A-Za-z0-9_-]{32}\.(?:sha256|sha512)")

# Digits at the beginning of a name that are a hash of the registry's, and all those of the repository.
REGISTRY_DIGITS, OWNER_DIGITS = 8, 32

# Random bytes of a session's id, 24 characters; and bytes of the hash of its client, the 8 characters behind.
RANDOM_BYTES, CLIENT_BYTES, MARK_CHARACTERS = 18, 6, 8


class UploadFiles:
    """The folder of the uploads. Every method blocks, and may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, repository: Repository, session: str, algorithm: str) -> Path:
        """Return the file of a session: it is found under the name of its own repository only."""
        return self.folder / f"{prefix_of(str(repository))}-{session}.{algorithm}"

    def create(self, path: Path) -> int:
        """Create a file, and its folder where that is missing; return its descriptor, locked."""
        while True:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
                descriptor = os.open(path, flags, 0o600)
            except FileNotFoundError:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                continue
            flock(descriptor, LOCK_EX | LOCK_NB)
            return descriptor

    def open_locked(self, path: Path) -> int:
        """Return the descriptor of a file. Raises FileNotFoundError, and BlockingIOError if it is in use."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
            if not is_name_of(path, descriptor):  # finished or cancelled a moment ago
                raise FileNotFoundError(path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def names(self, registry: str | None = None) -> list[str]:
        """Return the names of the sessions of a registry, None for all."""
        prefix = "" if registry is None else prefix_of(registry)
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return [each for each in names if each.startswith(prefix) and FILE_NAME.fullmatch(each)]

    def statuses(self, names: Iterable[str]) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the sessions that are still there."""
        for name in names:
            with suppress(FileNotFoundError):  # finished since it was listed
                yield name, os.stat(self.folder / name, follow_symlinks=False)

    def end_idle(self, name: str, before: float) -> bool:
        """Remove a session unless it was used since, or is used now; return whether it is gone."""
        path = self.folder / name
        try:
            descriptor = self.open_locked(path)
        except OSError:
            return False
        try:
            if os.fstat(descriptor).st_mtime >= before:
                return False
            path.unlink(missing_ok=True)
            return True
        finally:
            os.close(descriptor)

    def end_oldest(self, names: Iterable[str], before: float) -> bool:
        """Remove the session that was unused for the longest time, and since `before`."""
        old = sorted((status.st_mtime, name) for name, status in self.statuses(names))
        return any(self.end_idle(name, before) for used, name in old if used < before)


def prefix_of(scope: str) -> str:
    """Return how the names of the sessions begin of a registry, `office`, or a repository, `office/app`."""
    registry, _, path = scope.partition("/")
    prefix = _hash_of(registry)[:REGISTRY_DIGITS]
    return prefix + _hash_of(scope)[: OWNER_DIGITS - REGISTRY_DIGITS] if path else prefix


def new_id(client: str) -> str:
    """Return the id of a new session: random, with a mark of its client at the end."""
    return secrets.token_urlsafe(RANDOM_BYTES) + _client_mark(client)


def of_client(names: Iterable[str], client: str) -> list[str]:
    """Return the sessions that a client has begun."""
    mark = _client_mark(client)
    return [each for each in names if _mark_in(each) == mark]


def largest_of_client(names: Iterable[str]) -> list[str]:
    """Return the sessions of the client that has the most."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_mark_in(name), []).append(name)
    return max(groups.values(), key=len, default=[])


def by_owner(names: Iterable[str]) -> list[list[str]]:
    """Return the sessions of each repository, those of the one with the most sessions first."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name[:OWNER_DIGITS], []).append(name)
    most = Counter({owner: len(group) for owner, group in groups.items()})
    return [groups[owner] for owner, _ in most.most_common()]


def _mark_in(name: str) -> str:
    return name.partition(".")[0][-MARK_CHARACTERS:]


def _client_mark(client: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(client.encode()).digest()[:CLIENT_BYTES]).decode()


def _hash_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
