"""Words of upstreams to any mirror of the tier: written for all, read by all, believed by their seal.

The coordinator has the newest word, where it is a Redis. The bucket has what outlives it: each word that is
news, and one that is confirmed again once in REWRITE_SECONDS. So a Redis that has forgotten everything costs
requests to upstreams, and no content. Reading takes the limit of the tier for each engine, at most.
"""

import asyncio
import time
from collections.abc import Callable

from msgspec.structs import replace

from mirror.shared.bucket_records import MISSING_SECONDS, BucketRecords
from mirror.shared.engines import Engines
from mirror.shared.health import unlimited
from mirror.shared.interfaces import Records
from mirror.shared.tier import LEASES, OBJECTS, SharedTier
from mirror.shared.upstream_word import Seal, UpstreamWord
from mirror.util.lru import LRUCache
from mirror.util.tasks import Tasks

# How long the coordinator keeps a word, in seconds: longer than any is fresh that is confirmed again.
RECENT_SECONDS = 7 * 24 * 3600.0

# Interval, in seconds, at which a word that is no news is written to the bucket again.
REWRITE_SECONDS = 3600.0

# By how many seconds the clock of another mirror may be ahead.
AHEAD_SECONDS = 300.0

# The most words that wait to be written; beyond it the oldest are not written.
MAX_WAITING = 10_000

# Memory for what was written lately, in bytes, and what one word takes of it.
WRITTEN_BYTES = 2 * 1024 * 1024
WORD_BYTES = 200


class RecordBook:
    """The words of all mirrors, in the background where they are written."""

    def __init__(
        self,
        tier: SharedTier,
        engines: Engines,
        seal: Seal,
        tasks: Tasks,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tier = tier
        self._durable, self._recent, self._missing = engines.records, engines.recent, engines.missing
        self._seal = seal
        self._tasks = tasks
        self._clock = clock
        self._waiting: dict[str, UpstreamWord] = {}
        self._written: LRUCache[str, UpstreamWord] = LRUCache(WRITTEN_BYTES)
        self._writer: asyncio.Task[None] | None = None

    async def find(self, key: str) -> UpstreamWord | None:
        """Return the newest word that is known; None for none, and while no engine answers."""
        found = None
        if self._recent is not None and self._tier.coordinated:
            found = await self._read(LEASES, self._recent, key)
        if found is None and self._durable is not None and self._tier.usable:
            found = await self._read(OBJECTS, self._durable, key)
        if found is None and self._missing is not None and self._tier.usable:
            found = await self._read(OBJECTS, self._missing, key)
        return found

    def add(self, key: str, word: UpstreamWord) -> None:
        """Write a word, soon."""
        self._waiting.pop(key, None)
        self._waiting[key] = word
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        if self._writer is None or self._writer.done():
            with unlimited():
                self._writer = self._tasks.spawn(self._write(), name="write records to the shared tier")

    async def wait_written(self) -> None:
        """Wait until what was added is written, or given up."""
        if self._writer is not None:
            await asyncio.wait([self._writer])

    async def _read(self, engine: str, records: Records, key: str) -> UpstreamWord | None:
        sealed = await self._tier.ask(engine, "read record", lambda: records.get(key), None)
        data = None if sealed is None else self._seal.unwrap(key, sealed)
        word = None if data is None else UpstreamWord.parse(data)
        now = self._clock()
        if word is None or word.confirmed > now + AHEAD_SECONDS:
            return None
        return word if word.confirmed <= now else replace(word, confirmed=now)

    async def _write(self) -> None:
        while self._waiting:
            key = next(iter(self._waiting))
            word = self._waiting.pop(key)
            sealed = self._seal.wrap(key, word.to_bytes())
            if sealed is None:
                continue
            if self._recent is not None and self._tier.coordinated:
                seconds = RECENT_SECONDS if word.digest is not None else MISSING_SECONDS
                await self._put(LEASES, (self._recent, seconds), key, sealed)
            durable = self._durable if self._tier.usable and self._is_news(key, word) else None
            if durable is None:
                continue
            if word.digest is None:
                written = await self._end(durable, key, word, sealed)
            else:
                written = await self._put(OBJECTS, (durable, RECENT_SECONDS), key, sealed)
            if written:
                self._written.put(key, word, WORD_BYTES + len(word.listing))

    async def _end(self, durable: BucketRecords, key: str, word: UpstreamWord, sealed: bytes) -> bool:
        """Write that there is no such tag, and remove the word that this ends, unless that is newer.

        A coordinator has it too: then the bucket has it only where it ends something.
        """
        known = await self._read(OBJECTS, durable, key)
        if known is not None and known.confirmed > word.confirmed:
            return True
        ends = known is not None
        missing = self._missing if ends or self._recent is None else None
        if missing is not None and not await self._put(OBJECTS, (missing, MISSING_SECONDS), key, sealed):
            return False
        if not ends:
            return missing is not None

        async def remove() -> bool:
            await durable.remove(key)
            return True

        return await self._tier.ask(OBJECTS, "write record", remove, False)

    def _is_news(self, key: str, word: UpstreamWord) -> bool:
        known = self._written.get(key)
        if known is None or self._recent is None:
            return known != word
        same = replace(known, confirmed=word.confirmed) == word
        return not same or word.confirmed - known.confirmed > REWRITE_SECONDS

    async def _put(self, engine: str, to: tuple[Records, float], key: str, sealed: bytes) -> bool:
        records, seconds = to

        async def put() -> bool:
            await records.put(key, sealed, seconds)
            return True

        return await self._tier.ask(engine, "write record", put, False)
