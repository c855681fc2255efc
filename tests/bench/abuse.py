"""Abuse by some clients, measured at another one: latency of a warm blob, time of a cold one, memory.

Before the abuse the same client pulls from the same server alone: the baseline of the cold blob.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from tests.bench import probe
from tests.bench.abusers import Abuse, Abuser, abusing
from tests.bench.bench import Bench
from tests.bench.client import fetch
from tests.bench.contestants import BEFORE, DISTRIBUTION, MIRROR, PROXY, Running
from tests.bench.machine import cpu_seconds, rss_bytes
from tests.bench.origin import Origin
from tests.bench.throttle import Line

# The line of a registry that is far: downloads do not end as fast as clients ask.
LINE = Line(rate=6e6, rtt=0.05)

# Seconds of the baseline, and between two looks at memory.
ALONE_SECONDS, LOOK_SECONDS = 5.0, 0.2

# Cold blobs of the baseline, and beside the abuse.
COLD_ALONE, COLD_BESIDE = 6, 24

# Blobs that abusers ask for; the slow readers' ones are several times the quota, in MiB.
WANTED, QUOTA = 60, 100

INDEXES = 12

# Part of the time for which the probe may wait for its core without a note: its figures are too large then.
LATE = 0.1


@dataclass(frozen=True)
class Kind:
    """One kind of abuse. `paths` are what abusers ask for; nginx has room for `connections`."""

    count: int
    paths: Callable[[Bench], Sequence[str]]
    far: bool = False
    quota: int = 0
    connections: int = 4096


def _plain(bench: Bench) -> Sequence[str]:
    return [bench.site.plain.config.path]


def _large(bench: Bench) -> Sequence[str]:
    blobs = bench.site.large(COLD_ALONE + COLD_BESIDE + WANTED)
    return [blob.path for blob in blobs[COLD_ALONE + COLD_BESIDE :]]


def _indexes(bench: Bench) -> Sequence[str]:
    return [bench.site.index(number).path for number in range(INDEXES)]


KINDS = {
    "idle": Kind(10_000, _plain, connections=16_384),
    "leave": Kind(2_000, _large, far=True),
    "slow": Kind(200, _large, quota=QUOTA),
    "body": Kind(6, _plain),
    "names": Kind(1_000, _plain),
    "index": Kind(2, _indexes),
}


def abuse(bench: Bench, kind: str) -> None:
    """Measure another client of each contestant, alone and beside one kind of abuse."""
    how = KINDS[kind]
    paths = how.paths(bench)
    bench.site.large(COLD_ALONE + COLD_BESIDE)
    _ = bench.site.plain
    with _origin(bench, how) as origin:
        for name in bench.turns(MIRROR, DISTRIBUTION, PROXY):
            start = bench.cold(name, origin, quota=how.quota, connections=how.connections)
            with bench.attempt(f"abuse-{kind}", name), start as server:
                _measure(bench, server, Abuse(kind, server.address, paths, how.count))


def _origin(bench: Bench, how: Kind) -> AbstractContextManager[Origin]:
    return bench.behind(LINE) if how.far else bench.origin()


def _measure(bench: Bench, server: Running, abuse: Abuse) -> None:
    row = f"abuse-{abuse.kind}"
    cold = [blob.path for blob in bench.site.large(COLD_ALONE + COLD_BESIDE)]
    warm = bench.site.plain.config.path
    fetch(server, bench.site.plain.by_tag)
    fetch(server, warm)
    alone, rss = _probe(server, probe.Plan(server.address, warm, cold[:COLD_ALONE], ALONE_SECONDS))
    plan = probe.Plan(server.address, warm, cold[COLD_ALONE:], bench.options.abuse_seconds)
    before, abusers = cpu_seconds(server.pid), list[Abuser]()
    with ExitStack() as stack:

        def begin() -> None:
            abusers.append(stack.enter_context(abusing(abuse)))

        if abuse.kind == "idle":  # what costs there is to have them, not that they come
            begin()
        beside, peak = _probe(server, plan, begin if abuse.kind != "idle" else lambda: None)
    used = cpu_seconds(server.pid) - before
    if beside.late > LATE * plan.seconds:
        bench.note(f"{row}: the probe of {server.name} waited {beside.late:.2f} s for its own core")
    bench.add(f"{row}-unanswered", server.name, beside.unanswered_percent)
    if beside.warm_p99 is not None:
        bench.add(row, server.name, beside.warm_p99 * 1000)
    if server.name == MIRROR and alone.warm_p99 is not None:
        bench.add(row, BEFORE, alone.warm_p99 * 1000)
    if (ratio := beside.cold_ratio(alone)) is not None:
        bench.add(f"{row}-cold", server.name, ratio)
    bench.add(f"{row}-rss", server.name, (peak - rss) / 1e6)
    if abuse.kind == "names":
        bench.add(f"{row}-rate", server.name, abusers[0].result / bench.options.abuse_seconds)
        if abusers[0].result:
            bench.add(f"{row}-cpu", server.name, 1000 * used / abusers[0].result)
    if abuse.kind == "idle" and abusers[0].result < abuse.count:
        bench.note(f"abuse-idle: {server.name} took {abusers[0].result:,} connections")


def _probe(
    server: Running, plan: probe.Plan, begun: Callable[[], object] = lambda: None
) -> tuple[probe.Seen, int]:
    """Run the probe; return what it saw, and the most memory of the server meanwhile.

    `begun` is called when the probe has begun, so that it sees the beginning of an abuse.
    """
    most = rss_bytes(server.pid)
    with probe.start(plan) as process:
        try:
            begun()
            while process.poll() is None:
                most = max(most, rss_bytes(server.pid))
                time.sleep(LOOK_SECONDS)
            return probe.seen(process.communicate()[0]), most
        finally:
            process.kill()
