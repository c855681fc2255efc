"""Leases as objects in the bucket, by conditional writes: for sites without a Redis.

- Who is late in a race of conditional writes may wait seconds for its refusal (SeaweedFS), so each claim
  begins with a read, and with a short random pause where the lease is free.
- The ETag of an object is mostly the hash of its bytes: each body has a counter, which a renewal raises.
- Clocks of mirrors may disagree: a lease has lapsed when this mirror has seen it unchanged for its time, or
  when it is much older than that by the store's own clock.
"""

import asyncio
import random
import re
import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from mirror.shared.interfaces import ConditionalObjects, Holder, StoredText
from mirror.shared.keys import LEASES
from mirror.shared.lease_text import MAX_BYTES, format_holder, parse_holder

# The longest pause before a claim, in seconds: of 20 mirrors that want one blob, few then write at once.
JITTER = 0.05

# A lease is abandoned when it is this many times older than its duration, whatever clocks say.
ABANDONED = 20.0

# The most leases of others that are watched.
MAX_WATCHED = 10_000

_BODY = re.compile(rb"([\x20-\x7e]*)\n([0-9]{1,19}) ([0-9]{1,9})\n")


class _Body(Struct, frozen=True):
    """A lease's object: its holder, None for nobody; a counter; its duration in milliseconds."""

    holder: Holder | None
    counter: int
    milliseconds: int

    def to_bytes(self) -> bytes:
        name = "" if self.holder is None else format_holder(self.holder)
        return f"{name}\n{self.counter} {self.milliseconds}\n".encode()

    @classmethod
    def parse(cls, data: bytes) -> "_Body":
        """Return the body that the data is; that of a free lease for what is none of ours."""
        match = _BODY.fullmatch(data) if len(data) <= MAX_BYTES else None
        if match is None:
            return cls(None, 0, 0)
        return cls(parse_holder(match[1]), int(match[2]), int(match[3]))


class BucketLeases:
    """`Leases` in a bucket."""

    def __init__(
        self,
        objects: ConditionalObjects,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`chance` returns a number of at least 0 and less than 1."""
        self._objects = objects
        self._clock = clock
        self._wall_clock = wall_clock
        self._chance = chance
        self._seen: OrderedDict[str, tuple[str, float]] = OrderedDict()  # version, and when it was new to us

    async def acquire(self, key: str, holder: Holder, seconds: float) -> Holder:
        name = _name(key)
        found = await self._objects.read(name)
        if found is not None and (current := self._current(key, found)) is not None:
            return current
        await asyncio.sleep(JITTER * self._chance())
        counter = 1 if found is None else _Body.parse(found.data).counter + 1
        data = _Body(holder, counter, _milliseconds(seconds)).to_bytes()
        if found is None:
            acquired = await self._objects.create(name, data)
        else:
            acquired = await self._objects.replace(name, data, found.version)
        # An answer may be lost, and the write that it was for repeated: the object tells who holds the lease.
        return holder if acquired else await self.holder(key) or Holder("")

    async def renew(self, key: str, holder: Holder, seconds: float) -> bool:
        name = _name(key)
        found = await self._objects.read(name)
        if found is None or (body := _Body.parse(found.data)).holder != holder:
            return False
        renewed = _Body(holder, body.counter + 1, _milliseconds(seconds))
        return await self._objects.replace(name, renewed.to_bytes(), found.version)

    async def release(self, key: str, holder: Holder) -> None:
        """Free the lease by a conditional write: a plain delete could remove that of the next holder.

        The object stays, until garbage collection removes it.
        """
        name = _name(key)
        found = await self._objects.read(name)
        if found is not None and (body := _Body.parse(found.data)).holder == holder:
            await self._objects.replace(name, _Body(None, body.counter + 1, 0).to_bytes(), found.version)

    async def holder(self, key: str) -> Holder | None:
        found = await self._objects.read(_name(key))
        return None if found is None else self._current(key, found)

    async def close(self) -> None:
        """Do nothing: the objects belong to the tier."""

    def _current(self, key: str, found: StoredText) -> Holder | None:
        """Return the holder of a lease that has not lapsed."""
        body, now = _Body.parse(found.data), self._clock()
        if body.holder is None:
            return None
        version, since = self._seen.get(key, ("", now))
        if version != found.version:
            since = now
        self._seen[key] = (found.version, since)
        self._seen.move_to_end(key)
        while len(self._seen) > MAX_WATCHED:
            self._seen.popitem(last=False)
        seconds = body.milliseconds / 1000
        lapsed = now - since >= seconds
        abandoned = self._wall_clock() - found.modified > ABANDONED * max(seconds, 1.0)
        return None if lapsed or abandoned else body.holder


def _name(key: str) -> str:
    return f"{LEASES}/{key}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
