"""The order in which the sources of an upstream are asked."""

import time
from collections.abc import Sequence

from mirror.upstream.source import Source


def usable_first(sources: Sequence[Source]) -> list[Source]:
    """Return the usable sources, best first; all sources if none is usable."""
    now = time.monotonic()
    usable = [source for source in sources if source.health.usable(now)]
    return sorted(usable or sources, key=lambda source: source.health.latency / source.weight)


def speakers_of(sources: Sequence[Source]) -> list[Source]:
    """Return the sources that speak for the upstream: about tags, lists, and what a repository has."""
    return [source for source in sources if source.trusted_for_tags]
