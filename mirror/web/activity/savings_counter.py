"""Savings since the last time they were written: counted in memory, at the end of each request."""

import time
from collections.abc import Callable, Mapping

from mirror.store.metadata.savings_book import Amounts, Place
from mirror.web.activity.entries import EndedRequest

DAY = 24 * 3600

# Kinds of content that an upstream would have been asked for.
KINDS = ("manifest", "blob")

# Places that are counted apart until they are written; what comes beyond counts for its upstream alone.
MOST_PLACES = 10_000

# Outcomes of requests for which nothing had to be fetched, and of those for which it was.
SAVED, FETCHED = ("hit", "join", "stale"), ("miss", "passed")


class SavingsCounter:
    """Amounts by day, upstream and repository."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._amounts: dict[Place, Amounts] = {}
        self._received: Mapping[str, int] = {}

    def add(self, ended: EndedRequest) -> None:
        """Count a request, or several alike."""
        if ended.kind not in KINDS or ended.upstream is None or ended.status not in (200, 206, 304):
            return
        if ended.outcome not in SAVED + FETCHED:
            return
        found = self._of(ended.upstream, ended.repository or "")
        found.requests += ended.count
        if ended.outcome in SAVED:
            found.hits += ended.count
            found.saved += ended.bytes * ended.count
        else:
            found.missed += ended.bytes * ended.count
            found.seconds += ended.seconds * ended.count

    def note_received(self, received: Mapping[str, int]) -> None:
        """Count the bytes that have come from upstreams since the last call. `received`: so far."""
        for upstream, length in received.items():
            if length > (before := self._received.get(upstream, 0)):
                self._of(upstream, "").received += length - before
        self._received = dict(received)

    def take(self) -> dict[Place, Amounts]:
        """Return what was counted, and begin again."""
        taken, self._amounts = self._amounts, {}
        return taken

    def _of(self, upstream: str, repository: str) -> Amounts:
        day = int(self._clock() // DAY)
        if len(self._amounts) >= MOST_PLACES and (day, upstream, repository) not in self._amounts:
            repository = ""
        return self._amounts.setdefault((day, upstream, repository), Amounts())
