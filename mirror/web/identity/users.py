"""The users of `access.htpasswd`, re-read when the file changes."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from mirror.access.htpasswd import read_htpasswd
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.tracebacks import reason_of

log = get_logger(__name__)

# Interval of the look at the file, in seconds: so long a removed user may still be known.
WATCH_SECONDS = 1.0

# Letters of a stamp, in hex.
STAMP_LENGTH = 16


class Users:
    """Users and their hashes. A file that cannot be used after a change changes nothing, and is logged."""

    def __init__(self, path: Path, on_change: Callable[[], object] = ignore) -> None:
        """`on_change` is called after each change: a user may have lost a right."""
        self._path = path
        self._on_change = on_change
        self._hashes: Mapping[str, str] = {}
        self._seen: tuple[int, ...] = ()

    async def load(self) -> None:
        """Read the file for the first time. Raises OSError or ValueError."""
        self._seen, self._hashes = await asyncio.to_thread(self._read)

    async def watch(self) -> None:
        """Re-read the file whenever it has changed; never returns."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Re-read the file if it has changed."""
        seen = await asyncio.to_thread(_signature, self._path)
        if seen == self._seen:
            return
        try:
            self._seen, hashes = await asyncio.to_thread(self._read)
        except (OSError, ValueError) as error:
            self._seen = seen  # once for each state of the file
            log.error("users unusable, the old ones stay", file=str(self._path), reason=reason_of(error))
            return
        if hashes != self._hashes:
            self._hashes = hashes
            log.info("users re-read", file=str(self._path), users=len(hashes))
            self._on_change()

    def hash_of(self, user: str) -> str | None:
        """Return the hash of the user's password; None for an unknown user."""
        return self._hashes.get(user)

    def any_hash(self) -> str | None:
        """Return the hash of some user: an unknown user must cost as much as a known one."""
        return next(iter(self._hashes.values()), None)

    def stamp(self, user: str) -> str | None:
        """Return a text that changes with the user's password; None for an unknown user."""
        hashed = self._hashes.get(user)
        return None if hashed is None else hashlib.sha256(hashed.encode()).hexdigest()[:STAMP_LENGTH]

    def _read(self) -> tuple[tuple[int, ...], Mapping[str, str]]:
        seen = _signature(self._path)  # before the content: a change in between is seen the next time
        return seen, read_htpasswd(self._path)


def _signature(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content; () without the file."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns
