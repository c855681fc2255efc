"""A new, empty mirror that serves an image which only the object store has, beside the store itself."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

from tests.bench.client import Connection, Trouble
from tests.bench.content import Image
from tests.bench.tier.crowd import Crowd, Order, order
from tests.bench.tier.rows import Figures
from tests.bench.tier.site import Mirror, Site
from tests.bench.tier.warm import warm_up

# Ranges that are asked of the store at a time, and their bytes.
RANGES, PIECE = 16, 8 * 1024 * 1024

# Who serves what is measured: the store, a mirror over its line, a mirror to a client at its own node.
KINDS = ("store", "line", "node")


def newcomer(site: Site, image: Image, line: int, figures: Figures, turns: int) -> None:
    """Fill the tier by one mirror, which then ends; measure by turns the store alone, and new mirrors."""
    site = site.empty()
    site.upstream.shape(0)
    site.store_node.shape(0)
    with site.mirrors(1, 0) as (first,):
        warm_up(first, image)
        site.wait_stored(image)
    site.store_node.shape(line)
    site.origin.forget()
    kinds = list(KINDS)
    for turn in range(turns):
        found = {}
        for kind in kinds[turn % len(kinds) :] + kinds[: turn % len(kinds)]:
            found[kind] = _rate(site, image, line, kind)
            figures.add(f"newcomer-{kind}", found[kind] / 1e6)
        figures.add("newcomer-line-ratio", found["line"] / found["store"])
        figures.add("newcomer-node-ratio", found["node"] / found["store"])
    figures.add("newcomer-upstream", sum(site.origin.sent(each) for each in image.layers))


def _rate(site: Site, image: Image, line: int, kind: str) -> float:
    """Return the bytes per second of one client: of the store itself, or of a new mirror.

    That client is at another node, to which the mirror's line leads, or at the mirror's own.
    """
    if kind == "store":
        return _by_ranges(site, image, line)
    with (
        site.mirrors(1, line) as (mirror,),
        site.network.node() as other,
        Crowd(mirror.node if kind == "node" else other, _wanted(mirror, image)) as crowd,
    ):
        mirror.node.lose(site.upstream)
        crowd.go()
        found = crowd.result()
        if found.failures:
            raise Trouble(f"a new mirror failed: {found.failures[0]}")
        return found.bytes / found.seconds[0]


def _wanted(mirror: Mirror, image: Image) -> Order:
    """Return the order to pull by digest: the upstream, which is not there, need not confirm a tag first."""
    return replace(order(mirror.address, image, 1, verify=False), manifest=image.by_digest)


def _by_ranges(site: Site, image: Image, line: int) -> float:
    """Return the bytes per second that the store gives by many ranges at a time."""
    wanted = []
    for layer in image.layers:
        path = "/" + site.url(layer.digest).split("/", 3)[3]
        for start in range(0, layer.size, PIECE):
            wanted.append((path, start, min(start + PIECE, layer.size)))
    address = f"{site.store.host}:{site.store.port}"
    with site.network.node(line) as node, node.inside(), ThreadPoolExecutor(RANGES) as pool:
        started = time.perf_counter()
        total = sum(pool.map(lambda each: _range(address, *each), wanted))
        return total / (time.perf_counter() - started)


def _range(address: str, path: str, start: int, stop: int) -> int:
    with closing(Connection(address)) as connection:
        status, _, rest = connection.ask(path, {"Range": f"bytes={start}-{stop - 1}"})
        if status != 206:
            raise Trouble(f"the object store answers {status}")
        left = stop - start - len(rest)
        while left > 0:
            left -= connection.skip()
    return stop - start
