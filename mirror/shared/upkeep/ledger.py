"""Uses and pins of all mirrors, as small objects in the bucket, which outlive any coordinator.

    uses/<hour>/<mirror>-<n>   marks of what one mirror has used in an hour, written again as it goes on
    uses/<hour>/all-<n>        marks of all mirrors, once the hour is over: it replaces the others
    pins/<mirror>-<n>          marks of what is pinned at one mirror, written again at least once a day

`<hour>` is the number of the hour since the epoch. What is under other keys belongs to later versions.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

from mirror.shared.errors import TierError, TierFault
from mirror.shared.interfaces import ConditionalObjects, NamedObject
from mirror.shared.upkeep.marks import marks_to_objects, read_marks
from mirror.shared.upkeep.plan import HOUR, Knowledge

USES, PINS = "uses", "pins"

# An hour is folded into one object when it has been over for this many hours: mirrors write late.
FOLD_HOURS = 2

# How long uses are remembered, in hours, and pins of a mirror that does not write them again, in seconds.
REMEMBERED_HOURS = 30 * 24
PIN_SECONDS = 30 * 24 * HOUR

_USE = re.compile(r"uses/([0-9]{1,9})/([0-9a-z]{1,40})-([0-9]{1,4})")
_PIN = re.compile(r"pins/([0-9a-z]{1,40})-([0-9]{1,4})")
ALL = "all"


class UpkeepLedger:
    """The uses and pins in one bucket. All methods raise TierError."""

    def __init__(self, objects: ConditionalObjects) -> None:
        self._objects = objects
        self._folded: dict[str, set[bytes]] = {}  # by key: what is folded does not change

    async def write_uses(self, mirror: str, hour: int, marks: Iterable[bytes]) -> None:
        """Write what a mirror has used in an hour, all of it."""
        for number, data in enumerate(marks_to_objects(marks)):
            await self._objects.write(f"{USES}/{hour}/{mirror}-{number}", data)

    async def write_pins(self, mirror: str, marks: Iterable[bytes]) -> None:
        """Write what is pinned at a mirror, in place of what was."""
        written = list(marks_to_objects(marks)) or [b""]
        for number, data in enumerate(written):
            await self._objects.write(f"{PINS}/{mirror}-{number}", data)
        async for each in self._objects.names(PINS):
            match = _PIN.fullmatch(each.key)
            if match is not None and match[1] == mirror and int(match[2]) >= len(written):
                await self._objects.delete(each.key)

    async def read(self, now: float) -> Knowledge:
        """Return what all mirrors know; forget what is old, and fold the hours that are over."""
        used: dict[bytes, float] = {}
        for hour, names in sorted((await self._hours()).items()):
            if hour < now // HOUR - REMEMBERED_HOURS:
                await self._forget(names)
                continue
            marks = await self._fold(hour, names, now)
            end = min((hour + 1) * HOUR, now)
            used.update(dict.fromkeys(marks, end))
        return Knowledge(used, await self._pins(now))

    async def _hours(self) -> dict[int, list[NamedObject]]:
        hours: defaultdict[int, list[NamedObject]] = defaultdict(list)
        async for each in self._objects.names(USES):
            match = _USE.fullmatch(each.key)
            if match is not None:
                hours[int(match[1])].append(each)
        return hours

    async def _fold(self, hour: int, names: list[NamedObject], now: float) -> set[bytes]:
        """Return the marks of an hour, in as few objects as they need once it is over."""
        marks: set[bytes] = set()
        for each in names:
            marks |= await self._marks(each.key)
        single = [each for each in names if f"/{ALL}-" not in each.key]
        if single and hour < now // HOUR - FOLD_HOURS:
            await self.write_uses(ALL, hour, marks)
            self._folded = {key: known for key, known in self._folded.items() if f"/{hour}/" not in key}
            await self._forget(single)
        return marks

    async def _marks(self, key: str) -> set[bytes]:
        known = self._folded.get(key)
        if known is not None:
            return known
        found = await self._objects.read(key)
        if found is None:  # what it had is known no more, and would be taken for unused
            message = f"{key} in the bucket is gone: another mirror tidies up at the same time"
            raise TierError(TierFault.UNREACHABLE, message)
        marks = read_marks(found.data)
        if f"/{ALL}-" in key:
            self._folded[key] = marks
        return marks

    async def _forget(self, names: list[NamedObject]) -> None:
        for each in names:
            await self._objects.delete(each.key)
            self._folded.pop(each.key, None)

    async def _pins(self, now: float) -> set[bytes]:
        pinned: set[bytes] = set()
        async for each in self._objects.names(PINS):
            if _PIN.fullmatch(each.key) is None:
                continue
            if now - each.modified > PIN_SECONDS:
                await self._objects.delete(each.key)
                continue
            found = await self._objects.read(each.key)
            marks = set() if found is None else read_marks(found.data)
            if found is not None and found.data and not marks:
                message = f"{each.key} in the bucket is no list of pins, so nothing is removed: delete it"
                raise TierError(TierFault.WRONG, message)
            pinned |= marks
        return pinned
