"""Uploads: what clients push, in files of the folder `uploads/` until they are finished with a digest.

    uploads/<repository>-<id>.<algorithm>

`<repository>` is a hash of the registry's name (8 digits) and one of the repository's; `<id>` has 144 random
bits, and a hash of the client that began the upload.

A session is one file. Its size is the offset of the upload, its time of change the last use, its lock (flock)
the one request that appends now. So any worker continues any session, and neither a restart nor `kill -9`
loses what was written. A hash that runs is kept by the process in which it ran; another one reads the file.
"""

import errno
import hashlib
import os
import re
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mirror.oci.digest import ENCODED, Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.errors import StoreError
from mirror.store.lock import is_name_of
from mirror.store.partial.partial import HASH_STEP, IOV_MAX
from mirror.store.partial.upload_claims import UploadClaims
from mirror.store.partial.upload_files import UploadFiles, new_id
from mirror.util.fairness.client import NO_CLIENT

if TYPE_CHECKING:
    from hashlib import _Hash

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{32}")

# Name of the folder in the cache folder.
UPLOADS = "uploads"

# Hashes that are kept between the requests of a session, each some hundred bytes.
MOST_HASHES = 1024

# Sessions of one registry at a time, at most, where no option says so.
MOST_SESSIONS = 10_000

Part = bytes | bytearray | memoryview

# Errors of a disk without room: full, or its quota for this user.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class UploadUnknown(Exception):
    """There is no such session in this repository: never begun, finished, cancelled or expired."""


class UploadInUse(Exception):
    """Another request appends to the session now."""


class TooManyUploads(Exception):
    """No further session may be open. `whose`: "client", "repository" or "registry", which has too many."""

    def __init__(self, whose: str) -> None:
        super().__init__(f"the {whose} has too many uploads")
        self.whose = whose


class DiskFull(StoreError):
    """The disk took `written` bytes of what was to be appended, and has no room for the rest."""

    def __init__(self, written: int) -> None:
        super().__init__("no room is left on the disk of the cache folder")
        self.written = written


class WrongDigest(Exception):
    """The upload does not have the digest that it was finished with. `found`: the digest that it has."""

    def __init__(self, found: Digest) -> None:
        super().__init__(f"the upload has the digest {found}")
        self.found = found


class RunningHash:
    """The hash of the first `offset` bytes of an upload."""

    __slots__ = ("algorithm", "hash", "offset")

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.hash: _Hash = hashlib.new(algorithm)
        self.offset = 0

    def update(self, data: Part) -> None:
        """Hash the next bytes."""
        self.hash.update(data)
        self.offset += len(data)


class UploadSession:
    """One upload, locked by this object until `release`. Every method blocks."""

    def __init__(self, store: "UploadStore", path: Path, descriptor: int) -> None:
        self._store = store
        self._path = path
        self._descriptor = descriptor
        self._working = threading.Lock()  # a request that was given up releases behind the thread that writes
        self._released = False
        self._hash: RunningHash | None = store.take_hash(path.name)
        self.id = path.name.partition("-")[2].rpartition(".")[0]
        self.algorithm = path.suffix.removeprefix(".")

    @property
    def offset(self) -> int:
        """Return how many bytes have been written."""
        return os.fstat(self._descriptor).st_size

    def append(self, parts: Sequence[Part]) -> int:
        """Append bytes, and hash them while they are in the processor's cache; return the new offset.

        Raises DiskFull, and OSError. What was written by then is a part of the upload.
        """
        with self._working:
            if self._released:
                raise StoreError("the upload was given up")
            start = self.offset
            try:
                self._write(start, parts)
            except OSError as error:
                self._hash = None
                if error.errno in NO_SPACE:
                    raise DiskFull(self.offset - start) from error
                raise
            self._note_written(start, parts)
            return self.offset

    def _write(self, offset: int, parts: Sequence[Part]) -> None:
        view = deque(parts)
        while view:
            batch = [view[number] for number in range(min(len(view), IOV_MAX))]
            written = os.pwritev(self._descriptor, batch, offset)
            offset += written
            while view and written >= len(view[0]):
                written -= len(view.popleft())
            if written:
                view[0] = memoryview(view[0])[written:]

    def claim(self, size: int, left: Mapping[str, int]) -> tuple[str, int] | None:
        """Claim the size that the upload will have (`UploadClaims.claim`), until it is released."""
        with self._working:
            if self._released:
                raise StoreError("the upload was given up")
            return self._store.claims.claim(self._path.name, size, left)

    def finish(self, digest: Digest) -> VerifiedFile:
        """Return the file for adoption, which moves it away. Raises WrongDigest, and the session stays."""
        with self._working:
            running = self._hash
            if running is None or running.algorithm != digest.algorithm:
                running = RunningHash(digest.algorithm)
            size = self.offset
            self._read_until(running, size)
            self._hash = running
        found = Digest(digest.algorithm, running.hash.hexdigest())
        if found != digest:
            raise WrongDigest(found)
        return VerifiedFile(digest, self._path, size)

    def cancel(self) -> None:
        """Remove the session. The caller must still release it."""
        self._path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Forget the hash of a file that is no session any more."""
        with self._working:
            self._hash = None

    def release(self) -> None:
        """Let other requests have the session."""
        with self._working:
            if self._released:
                return
            self._released = True
            if self._hash is not None:
                self._store.keep_hash(self._path.name, self._hash)
            try:
                self._note_use()
                self._store.claims.end(self._path.name)
            finally:
                os.close(self._descriptor)

    def _note_use(self) -> None:
        """Have the session count as used now, though this request may have written nothing for long."""
        if is_name_of(self._path, self._descriptor):  # else it is finished or cancelled
            with suppress(OSError):
                os.utime(self._descriptor)

    def _note_written(self, start: int, parts: Sequence[Part]) -> None:
        if self._hash is None and start == 0:
            self._hash = RunningHash(self.algorithm)
        if self._hash is None:
            return
        if self._hash.offset == start:
            for part in parts:
                self._hash.update(part)
        elif self._hash.offset > start:  # of a file that another process has changed
            self._hash = None

    def _read_until(self, running: RunningHash, stop: int) -> None:
        while running.offset < stop:
            data = os.pread(self._descriptor, min(HASH_STEP, stop - running.offset), running.offset)
            if not data:
                raise StoreError(f"{self._path.name} is shorter than it was written")
            running.update(data)


class UploadStore:
    """The sessions of one cache folder. Every method blocks, and may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        """`folder`: that of the sessions, made when it is needed."""
        self.folder = folder
        self._files = UploadFiles(folder)
        self.claims = UploadClaims(self._files)
        self._hashes: OrderedDict[str, RunningHash] = OrderedDict()
        self._lock = threading.Lock()

    def create(
        self,
        repository: Repository,
        algorithm: str = "sha256",
        most: int = MOST_SESSIONS,
        client: str = NO_CLIENT,
    ) -> UploadSession:
        """Begin an upload. Raises TooManyUploads if the registry of the repository has `most` sessions.

        Repository and client (`mirror.util.fairness.client`) have a share of these.
        """
        if whose := self.claims.admit(repository, most, client):
            raise TooManyUploads(whose)
        path = self._files.path(repository, new_id(client), algorithm)
        descriptor = self._files.create(path)
        self.claims.add(path.name)
        return UploadSession(self, path, descriptor)

    def open(self, repository: Repository, session: str) -> UploadSession:
        """Continue an upload. Raises UploadUnknown, and UploadInUse."""
        if SESSION_ID.fullmatch(session) is None:
            raise UploadUnknown
        for algorithm in ENCODED:
            path = self._files.path(repository, session, algorithm)
            try:
                return UploadSession(self, path, self._files.open_locked(path))
            except FileNotFoundError:
                continue
            except BlockingIOError:
                raise UploadInUse from None
        raise UploadUnknown

    def totals(self) -> tuple[int, int]:
        """Return number and bytes of all sessions."""
        sizes = [status.st_size for _, status in self._files.statuses(self._files.names())]
        return len(sizes), sum(sizes)

    def expire(self, registry: str, before: float) -> list[str]:
        """Remove a registry's sessions that were not used since a moment (seconds since the epoch).

        Returns their names.
        """
        found = self._files.statuses(self._files.names(registry))
        old = [name for name, status in found if status.st_mtime < before]
        return [name for name in old if self._files.end_idle(name, before)]

    def take_hash(self, name: str) -> RunningHash | None:
        """Return the hash that this process has of a session, which it forgets."""
        with self._lock:
            return self._hashes.pop(name, None)

    def keep_hash(self, name: str, running: RunningHash) -> None:
        """Keep the hash of a session for its next request."""
        with self._lock:
            self._hashes[name] = running
            while len(self._hashes) > MOST_HASHES:
                self._hashes.popitem(last=False)
