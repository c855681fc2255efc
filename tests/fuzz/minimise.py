"""Minimiser of a failing case: fewer requests, then fewer bytes, while the same kind of failure shows."""

import time
from collections.abc import Iterator
from dataclasses import replace

from tests.fuzz.campaign import Campaign, Failure
from tests.fuzz.cases import Case, Way
from tests.fuzz.mirrors import MirrorUnderTest

# Time, in seconds, for one failure.
SECONDS = 30.0

BLOCKS = (4_096, 512, 64, 16, 4, 1)


class Minimiser:
    """One failure and what is left of its case. `mirror`: where the failure showed."""

    def __init__(self, campaign: Campaign, failure: Failure, mirror: MirrorUnderTest) -> None:
        self._campaign = campaign
        self._failure = failure
        self._mirror = mirror
        self._end = time.monotonic() + SECONDS
        self.shows_alone = False

    async def run(self) -> Case:
        """Return the smallest case found; the whole one if the failure does not show when it runs alone."""
        case = self._failure.case
        self.shows_alone = await self._fails(case)
        found = self.shows_alone
        while found and time.monotonic() < self._end:
            found = False
            for smaller in _smaller(case):
                if time.monotonic() > self._end:
                    break
                if await self._fails(smaller):
                    case, found = smaller, True
                    break
        return case

    async def _fails(self, case: Case) -> bool:
        if self._failure.text.startswith("log: "):
            return bool(await self._campaign.logs(self._mirror, case))
        kinds = {each.kind for each in await self._campaign.judge(case)}
        return self._failure.kind in kinds


def _smaller(case: Case) -> Iterator[Case]:
    """Yield smaller cases, those with the largest part gone first."""
    requests = case.requests
    for place in range(len(requests)):
        if len(requests) > 1:
            yield case.with_requests([*requests[:place], *requests[place + 1 :]])
    if case.way not in (Way.PIPELINED, Way.IN_TURN):
        yield replace(case, way=Way.PIPELINED)
    for place, request in enumerate(requests):
        if request.expected is not None:
            continue
        for block in BLOCKS:
            if block >= len(request.data):
                continue
            for start in range(0, len(request.data), block):
                data = request.data[:start] + request.data[start + block :]
                left = replace(request, data=data)
                yield case.with_requests([*requests[:place], left, *requests[place + 1 :]])
