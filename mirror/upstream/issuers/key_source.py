"""The public keys of one issuer, as far as they are known now: fetched when needed, kept through outages.

    a key that is known         used at once; after REFRESH_SECONDS the set is fetched again in the background
    a key that is not known     the set is fetched, at most once in RETRY_SECONDS, once for all who wait
    the issuer is unavailable   the set stays for KEPT_SECONDS after the last success, then nothing is proven

A key that an issuer withdraws is forgotten with the next fetch.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from mirror.access.jwt.keys import DOCUMENT_BYTES, KeySet, parse_key_set
from mirror.upstream.errors import UpstreamError
from mirror.upstream.outage import Outage
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks

log = get_logger(__name__)

# Ages of a key set, in seconds.
REFRESH_SECONDS = 15 * 60.0
RETRY_SECONDS = 10.0
KEPT_SECONDS = 24 * 3600.0

NOTHING = KeySet()

# Returns a key set, unparsed. Raises UpstreamError or OSError.
Fetch = Callable[[], Awaitable[bytes]]


class KeySource:
    """The keys of the issuer called `name`. `refresh`: age in seconds at which they are fetched again."""

    def __init__(
        self,
        name: str,
        fetch: Fetch,
        tasks: Tasks,
        clock: Callable[[], float] = time.monotonic,
        refresh: float = REFRESH_SECONDS,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._tasks = tasks
        self._clock = clock
        self._refresh_seconds = refresh
        self._keys = NOTHING
        self._fetched = self._tried = float("-inf")
        self._running: asyncio.Task[None] | None = None
        self._outage = Outage()

    async def keys(self, kid: str | None) -> KeySet:
        """Return the keys, with that of the name `kid` if the issuer has it; without any in an outage."""
        known = self.current
        if known.knows(kid):
            if self._clock() >= self._fetched + self._refresh_seconds:
                self._start()
            return known
        if (running := self._start()) is not None:
            await asyncio.shield(running)
        return self.current

    @property
    def current(self) -> KeySet:
        """The keys that are known now; none after an outage that was too long."""
        return self._keys if self._clock() < self._fetched + KEPT_SECONDS else NOTHING

    def _start(self) -> "asyncio.Task[None] | None":
        """Return the fetch that is running, or a new one; None if the last one was a moment ago."""
        if self._running is None and self._clock() >= self._tried + RETRY_SECONDS:
            self._tried = self._clock()
            self._running = self._tasks.spawn(self._run(), name=f"keys of {self._name}")
            self._running.add_done_callback(self._note_end)
        return self._running

    def _note_end(self, _: object) -> None:
        self._running = None

    async def _run(self) -> None:
        try:
            document = await self._fetch()
            self._keys = await asyncio.to_thread(parse_key_set, document)
        except (UpstreamError, OSError, ValueError) as error:
            if self._outage.failed(self._clock()) is not None:
                log.warning("keys of an issuer not available", issuer=self._name, reason=str(error))
            return
        self._fetched = self._clock()
        if self._outage.ended(self._clock()) is not None:
            log.info("keys of an issuer available again", issuer=self._name)


def file_reader(path: Path) -> Fetch:
    """Return a function that reads a key set from a file."""

    def read() -> bytes:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > DOCUMENT_BYTES:
                raise ValueError(f"{path} is longer than {DOCUMENT_BYTES} bytes")
            return file.read(DOCUMENT_BYTES)

    return lambda: asyncio.to_thread(read)
