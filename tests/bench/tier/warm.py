"""Warm mirrors: more of them on lines of their own, and one with the tier configured beside one without."""

import os
from contextlib import ExitStack
from pathlib import Path

from tests.bench.client import fetch, throughput, wrk
from tests.bench.content import Image
from tests.bench.contestants import Running
from tests.bench.machine import LOAD_CORE, SERVER_CORE, cpu_seconds, on_core, tree
from tests.bench.tier.crowd import Crowd, Order
from tests.bench.tier.rows import COUNTS, Figures
from tests.bench.tier.site import Mirror, Site

# Connections of the clients of one mirror.
CONNECTIONS = 4

SMALL_CONNECTIONS = 32


def lines(site: Site, image: Image, line: int, figures: Figures, seconds: float) -> None:
    """Measure the warm bytes of 1, 2, 4 and 8 mirrors, whose clients read for so long."""
    site = site.empty()
    site.upstream.shape(0)
    site.store_node.shape(0)
    with site.mirrors(max(COUNTS), line) as running, ExitStack() as stack:
        nodes = [stack.enter_context(site.network.node()) for _ in running]
        for mirror in running:
            warm_up(mirror, image)
        rates = {}
        for count in COUNTS:
            with ExitStack() as crowds:
                found = []
                for node, mirror in zip(nodes[:count], running, strict=False):
                    wanted = Order(mirror.address, CONNECTIONS, "", [image.layers[0].path], seconds)
                    found.append(crowds.enter_context(Crowd(node, wanted)))
                for crowd in found:
                    crowd.go()
                rates[count] = sum(each.bytes / each.elapsed for each in (one.result() for one in found))
            figures.add(f"lines-{count}-rate", rates[count] / 1e6)
            figures.add(f"lines-{count}", rates[count] / rates[1])


def overhead(site: Site, image: Image, figures: Figures, seconds: float, turns: int) -> None:
    """Measure hits of a mirror with the tier and of one without, by turns, each on the core of the server."""
    site = site.empty()
    for node in (site.upstream, site.store_node):
        node.shape(0)
    with (
        site.mirrors(1, 0) as with_tier,
        site.mirrors(1, 0, shared=False) as without,
        on_core(LOAD_CORE),
    ):
        pair = [*with_tier, *without]
        for mirror in pair:
            _pin(mirror)
            warm_up(mirror, image)
            fetch(Running("", mirror.address), image.config.path)
        for turn in range(turns):
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            for work, path in (("blob", image.config.path), ("tag", image.by_tag)):
                found = {each: _small(pair[each], path, seconds) for each in order}
                figures.add(f"overhead-{work}", found[0][0] / found[1][0])
                figures.add(f"overhead-{work}-cpu", found[0][1] / found[1][1])
            large = {each: _large(pair[each], image.layers[0].path, seconds) for each in order}
            figures.add("overhead-large", large[0][0] / large[1][0])
            figures.add("overhead-large-cpu", large[0][1] / large[1][1])


def warm_up(mirror: Mirror, image: Image) -> None:
    """Have a mirror fetch an image."""
    server = Running("", mirror.address)
    fetch(server, image.by_tag)
    for blob in (image.config, *image.layers):
        fetch(server, blob.path)


def _pin(mirror: Mirror) -> None:
    """Have the mirror on the core of the server."""
    for pid in tree(mirror.pid):
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {SERVER_CORE})


def _small(mirror: Mirror, path: str, seconds: float) -> tuple[float, float]:
    """Return requests per second, and server processor time for each."""
    before = cpu_seconds(mirror.pid)
    rate = wrk(Running("", mirror.address), path, SMALL_CONNECTIONS, seconds).rate
    return rate, (cpu_seconds(mirror.pid) - before) / (rate * seconds)


def _large(mirror: Mirror, path: str, seconds: float) -> tuple[float, float]:
    """Return bytes per second, and server processor time for each."""
    before = cpu_seconds(mirror.pid)
    rate = throughput(Running("", mirror.address), path, CONNECTIONS, seconds)
    return rate, (cpu_seconds(mirror.pid) - before) / (rate * seconds)
