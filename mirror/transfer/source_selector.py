"""Which source a download asks next, and which ones it no longer asks."""

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from mirror.upstream.errors import UpstreamError
from mirror.upstream.source import Source
from mirror.upstream.upstream import Upstream


class SourceSelector:
    """The sources of one upstream, as one download has found them.

    `linked`: the repository is known to have the blob, so any source may be asked; else its own endpoint
    first. `alone`: whom to ask one after another, so that it is known who sent what.
    """

    def __init__(self, upstream: Upstream, *, linked: bool, alone: Sequence[Source] = ()) -> None:
        self.confirmed = linked  # that the repository has it
        self._upstream = upstream
        self._alone = alone
        self._refused: dict[Source, UpstreamError] = {}
        self._silent: Counter[Source] = Counter()  # how often it was given up
        self._shunned: dict[Source, float] = {}  # until when others are asked instead

    def candidates(self) -> list[Source]:
        """The sources that may have it, best first. Raises the error of the last one that could not help."""
        own = self._upstream.own
        if not self.confirmed and own not in self._refused:
            return [own]
        if alone := [source for source in self._alone if source not in self._refused]:
            return alone[:1]
        candidates = [source for source in self._upstream.usable_sources() if source not in self._refused]
        if not candidates:
            candidates = [source for source in self._upstream.sources if source not in self._refused]
        if not candidates:
            raise self._refused.get(own) or next(iter(self._refused.values()))
        return candidates

    def pick(self, busy: Mapping[Source, int], beginning: Collection[Source] = ()) -> Source:
        """Where the next connection goes: to each source as many as its speed is worth.

        `busy`: how many each of them has; `beginning`: who has one already, and is still to show what it is
        worth. Raises as `candidates`.
        """
        now = time.monotonic()
        candidates = self.candidates()
        candidates = [source for source in candidates if not source.throttled(now)] or candidates
        candidates = [each for each in candidates if self._shunned.get(each, now) <= now] or candidates
        candidates = [source for source in candidates if source not in beginning] or candidates
        fastest = max(source.health.speed for source in candidates) or 1.0

        def share(source: Source) -> float:
            speed = source.weight * (source.health.speed or fastest) / (1 + 9 * self._silent[source])
            usable = not busy or (source.supports_ranges and not source.saturated)
            return speed / (1 + busy.get(source, 0)) if usable else 0.0

        return max(candidates, key=share)

    def refused(self, source: Source, error: UpstreamError) -> None:
        """It cannot help. Raises the error if it was the last one that could have."""
        self._refused[source] = error
        self.candidates()

    def back_off(self, source: Source) -> None:
        """Have others asked for a while, longer each time: it fell silent, or was too slow."""
        self._silent[source] += 1
        self._shunned[source] = time.monotonic() + 2.0 ** min(self._silent[source], 6)

    def silences(self, source: Source | None = None) -> int:
        """How often it was shunned; all of them together without one."""
        return self._silent.total() if source is None else self._silent[source]
