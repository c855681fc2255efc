"""Judgement of memory: what workers hold levels off once their containers are full.

Containers with default bounds are full after a million requests or more: only a mirror with small bounds is
judged (`tests.fuzz.watched`). Live bytes count, and of several moments the least: requests that run hold
some, and free blocks between used ones are none.
"""

from collections.abc import Sequence

# Requests from which on a run is judged, for each worker; and what a worker may hold more in the last quarter
# of a run than in the second one, because of tables that time fills, and of the connections of the moment.
JUDGED_FROM = 20_000
GROWTH_BYTES = 5 * 2**20

Sample = tuple[int, int]


def growth(samples: Sequence[Sample]) -> int:
    """Return how many bytes more are held in the last quarter of a run than in its second one.

    `samples`: number of requests so far, and live bytes.
    """
    end = samples[-1][0]
    before = [held for requests, held in samples if end / 4 <= requests <= end / 2]
    after = [held for requests, held in samples if requests >= end * 3 / 4]
    return min(after) - min(before) if before else 0


def level_fault(samples: Sequence[Sample], workers: int) -> str | None:
    """Return what is wrong with the memory of a mirror with small bounds, None for nothing."""
    if not samples or samples[-1][0] < JUDGED_FROM * workers:
        return None
    more = growth(samples)
    if more <= GROWTH_BYTES * workers:
        return None
    return f"memory grows with requests: {more / 2**20:.1f} MiB more in the last quarter than in the second"
