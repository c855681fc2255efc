"""Uploads for the event loop: each step in a thread of its own pool, with room made for what comes.

Writing and hashing take the time of a push, and must not delay look-ups and fills: so the threads are others.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

from mirror.config.hosting.hosted import HostedSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.errors import StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.partial.upload import UPLOADS, DiskFull, Part, UploadInUse, UploadSession, UploadStore
from mirror.store.store import Store
from mirror.util.fairness.client import current_client
from mirror.util.log import get_logger
from mirror.util.tasks import run_to_completion

log = get_logger(__name__)

# Threads that write and hash: a disk serves few writers at a time well.
WRITERS = 4

# Time, in seconds, for the request before on a session to end, whose client may have left a moment ago.
BUSY_SECONDS, POLL_SECONDS = 5.0, 0.05

# How often room is made for one piece of an upload: other writers may take it.
TRIES = 3


class NoRoomForUpload(StoreError):
    """The disk has no room for an upload, whatever may be evicted."""


class Uploads:
    """The sessions of all hosted registries of one mirror."""

    def __init__(
        self, store: Store, hosted: Iterable[HostedSettings], clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._settings = {each.name: each for each in hosted}
        self._clock = clock
        self.files = UploadStore(store.folder.path / UPLOADS)
        self._executor = DiskExecutor(WRITERS)

    @asynccontextmanager
    async def begin(self, repository: Repository, algorithm: str = "sha256") -> AsyncIterator[UploadSession]:
        """Begin an upload. Raises TooManyUploads."""
        most = self._settings[repository.upstream].max_uploads
        starting = self._executor.start(self.files.create, repository, algorithm, most, current_client())
        session = await self._executor.await_or_release(starting, UploadSession.release)
        try:
            yield session
        finally:
            await self._release(session)

    @asynccontextmanager
    async def resume(self, repository: Repository, session_id: str) -> AsyncIterator[UploadSession]:
        """Continue an upload. Raises UploadUnknown, and UploadInUse."""
        session = await self._open(repository, session_id)
        try:
            yield session
        finally:
            await self._release(session)

    def start_append(self, session: UploadSession, parts: Sequence[Part]) -> "asyncio.Future[int]":
        """Start to append bytes; await the future with `end_append`, before the next ones are appended."""
        pending = self._executor.start(session.append, parts)
        pending.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return pending

    async def end_append(
        self, pending: "asyncio.Future[int]", session: UploadSession, parts: Sequence[Part], missing: int = 0
    ) -> None:
        """Wait until the bytes are appended; make room if there is none, for `missing` that follow as well.

        Raises NoRoomForUpload, and StoreError.
        """
        for _ in range(TRIES):
            try:
                await pending
                return
            except DiskFull as full:
                parts = _behind(parts, full.written)
                await self._store.room.make_room(missing + sum(map(len, parts)))
            pending = self.start_append(session, parts)
        raise NoRoomForUpload("no room is left on the disk")

    async def check_room(self, size: int) -> None:
        """Raise NoRoomForUpload if `size` bytes cannot come to fit on the disk; make room for the first."""
        if not await self._executor.run(self._is_free, size):
            if not await self._executor.run(self._store.folder.evictor.can_free, size):
                raise NoRoomForUpload(f"{size} bytes have no room on the disk")
            await self._store.room.make_room(size)

    async def finish(self, session: UploadSession, digest: Digest) -> VerifiedFile:
        """Return the file for adoption. Raises WrongDigest, and the session stays."""
        return await self._executor.run(session.finish, digest)

    async def cancel(self, session: UploadSession) -> None:
        """Remove the session."""
        await self._executor.run(session.cancel)

    async def expire(self) -> None:
        """Remove the uploads that clients do not continue."""
        for each in self._settings.values():
            before = self._clock() - each.upload_expiry
            if names := await self._executor.run(self.files.expire, each.name, before):
                log.info("removed uploads that no client continued", registry=each.name, uploads=len(names))

    async def totals(self) -> tuple[int, int]:
        """Return number and bytes of the open uploads."""
        return await self._executor.run(self.files.totals)

    def close(self) -> None:
        """End the threads."""
        self._executor.executor.shutdown(wait=False)

    async def _open(self, repository: Repository, session_id: str) -> UploadSession:
        until = asyncio.get_running_loop().time() + BUSY_SECONDS
        while True:
            opening = self._executor.start(self.files.open, repository, session_id)
            try:
                return await self._executor.await_or_release(opening, UploadSession.release)
            except UploadInUse:
                if asyncio.get_running_loop().time() > until:
                    raise
            await asyncio.sleep(POLL_SECONDS)

    async def _release(self, session: UploadSession) -> None:
        with suppress(StoreError):
            await run_to_completion(self._executor.run(session.release))

    def _is_free(self, size: int) -> bool:
        return shutil.disk_usage(self._store.folder.path).free > size


def _behind(parts: Sequence[Part], written: int) -> list[Part]:
    """Return what follows the first bytes of `parts`."""
    rest: list[Part] = []
    for part in parts:
        if written < len(part):
            rest.append(memoryview(part)[written:])
        written = max(0, written - len(part))
    return rest
