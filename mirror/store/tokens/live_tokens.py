"""The tokens as a serving process knows them: in memory, and never older than the access epoch.

The epoch is compared at every look-up, which costs no system call. After a change the file is read before the
look-up ends, so that a revoked token is refused by the first request that begins after the revocation. A file
that was replaced by hand, from a backup for instance, is found by its signature, within LOOK_SECONDS.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from mirror.access.tokens import TokenEntry, TokenTable
from mirror.store.invalidation import Epoch
from mirror.store.tokens.token_file import Signature
from mirror.store.tokens.token_store import TokenStore
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks

log = get_logger(__name__)

# Interval, in seconds, at which last uses are written and the file is compared, while tokens are used.
LOOK_SECONDS = 10.0

# A number that no epoch has: nothing was read yet.
NEVER = -1


class LiveTokens:
    """The tokens of one folder, for one event loop. `close` writes the last uses."""

    def __init__(self, folder: Path, epoch: Epoch, clock: Callable[[], float] = time.time) -> None:
        self._store = TokenStore(folder, epoch)
        self._epoch = epoch
        self._clock = clock
        self._table = TokenTable()
        self._seen = NEVER
        self._signature: Signature | None = None
        self._reading = asyncio.Lock()
        self._uses: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = Tasks()

    async def find(self, secret: str) -> TokenEntry | None:
        """Return the token of a secret, expired or not; None for one that is unknown or revoked.

        Where the file cannot be read no token is known: one that may have been revoked is not taken.
        """
        if self._seen != self._epoch.access_changes():
            await self._read()
        return self._table.find(secret)

    async def recall(self, digest: str) -> TokenEntry | None:
        """Return the token whose secret has this digest, as `find` does."""
        if self._seen != self._epoch.access_changes():
            await self._read()
        return self._table.recall(digest)

    def note_use(self, entry: TokenEntry) -> None:
        """Note that a request was made with a token; the time is written later, with others."""
        self._uses[entry.sha256] = self._clock()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._on_timer)

    async def close(self) -> None:
        """Write the last uses, and end."""
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.close()
        await self._look()

    async def _read(self) -> None:
        async with self._reading:
            now = self._epoch.access_changes()
            if self._seen == now:  # another request has read it meanwhile
                return
            try:
                self._signature, self._table = await asyncio.to_thread(self._load)
            except OSError as error:
                self._signature, self._table = None, TokenTable()
                log.error("tokens cannot be read, none is taken", reason=str(error))
            self._seen = now

    def _load(self) -> tuple[Signature | None, TokenTable]:
        return self._store.signature(), TokenTable(self._store.all())

    def _on_timer(self) -> None:
        self._timer = None
        if self._tasks.closed:  # `close` has written the uses
            return
        self._tasks.spawn(self._look(), name="uses of tokens")

    async def _look(self) -> None:
        """Write the uses so far, and read the file again at the next look-up if it was replaced."""
        uses, self._uses = self._uses, {}
        try:
            if uses:
                await asyncio.to_thread(self._store.note_uses, uses)
            if self._seen != NEVER and await asyncio.to_thread(self._store.signature) != self._signature:
                self._epoch.note_access_change()
        except OSError as error:  # a full disk costs times of uses, and no request
            log.warning("uses of tokens not written", reason=str(error))
