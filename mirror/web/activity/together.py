"""The activity of all workers as one: lists joined, rates and states merged."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from mirror.web.activity.activity import TRAFFIC_SECONDS
from mirror.web.activity.entries import (
    EndedRequest,
    RunningDownload,
    RunningRequest,
    SourceState,
    TrafficSample,
    UpstreamState,
    WorkerActivity,
)

# States of a breaker, the worst one last.
BREAKERS = ("closed", "half_open", "open")


class TrafficRate(Struct, frozen=True):
    """Bytes a second from upstreams and to clients, at a moment in seconds since the epoch."""

    moment: float
    received: float
    sent: float


class AllActivity(Struct, frozen=True, kw_only=True):
    """The activity of all workers. `recent`: the latest first."""

    workers: int
    requests: list[RunningRequest]
    downloads: list[RunningDownload]
    recent: list[EndedRequest]
    traffic: list[TrafficRate]
    upstreams: list[UpstreamState]


def together(workers: Sequence[WorkerActivity], recent: int) -> AllActivity:
    """Return the activity of all workers, with the latest `recent` ended requests."""
    ended = sorted((each for worker in workers for each in worker.recent), key=lambda each: -each.ended)
    return AllActivity(
        workers=len(workers),
        requests=sorted(
            (each for worker in workers for each in worker.requests), key=lambda each: each.began
        ),
        downloads=[each for worker in workers for each in worker.downloads],
        recent=ended[:recent],
        traffic=_traffic(worker.traffic for worker in workers),
        upstreams=_upstreams([worker.upstreams for worker in workers]),
    )


def _traffic(workers: Iterable[Sequence[TrafficSample]]) -> list[TrafficRate]:
    """Return the rates of all workers together, in steps of TRAFFIC_SECONDS.

    The last step is left out until all workers have taken their samples of it.
    """
    sums: dict[int, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    ends = list[int]()
    for samples in workers:
        for before, after in pairwise(samples):
            seconds = after.moment - before.moment
            if seconds <= TRAFFIC_SECONDS / 4:  # the clock was changed, or the timer was early
                continue
            slot = int(after.moment / TRAFFIC_SECONDS)
            received, sent = sums[slot]
            received += max(0, after.received - before.received) / seconds
            sums[slot] = received, sent + max(0, after.sent - before.sent) / seconds
        if len(samples) > 1:
            ends.append(int(samples[-1].moment / TRAFFIC_SECONDS))
    if ends and min(ends) < max(ends):
        sums.pop(max(ends), None)
    return [TrafficRate(slot * TRAFFIC_SECONDS, *sums[slot]) for slot in sorted(sums)]


def _upstreams(workers: Sequence[list[UpstreamState]]) -> list[UpstreamState]:
    """Return each upstream once: connections summed, and the worst state of all workers."""
    merged: dict[str, UpstreamState] = {}
    for each in (each for worker in workers for each in worker):
        known = merged.get(each.name)
        merged[each.name] = each if known is None else _merged(known, each)
    return list(merged.values())


def _merged(first: UpstreamState, second: UpstreamState) -> UpstreamState:
    others = {each.source: each for each in second.sources}
    sources = [
        _source(each, others[each.source]) if each.source in others else each for each in first.sources
    ]
    return replace(first, sources=sources)


def _source(first: SourceState, second: SourceState) -> SourceState:
    measured = [each for each in (first, second) if each.speed] or [first]
    seen = {each.account: each for each in second.accounts}
    accounts = [
        other
        if (other := seen.get(each.account)) is not None and _less(other.remaining, each.remaining)
        else each
        for each in first.accounts
    ]
    return replace(
        first,
        breaker=max((first.breaker, second.breaker), key=_rank),
        latency=max(each.latency for each in measured),
        speed=min(each.speed for each in measured),
        connections=first.connections + second.connections,
        accounts=accounts,
    )


def _less(first: int | None, second: int | None) -> bool:
    return first is not None and (second is None or first < second)


def _rank(state: str) -> int:
    return BREAKERS.index(state) if state in BREAKERS else len(BREAKERS)
