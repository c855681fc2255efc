"""Mirror on a cache of some size: its start, and the effect of the size on clients."""

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles

from tests.bench.client import Connection, Trouble
from tests.bench.content import Site
from tests.bench.contestants import Running
from tests.bench.machine import SERVER_CORE, cpu_seconds, on_core, rss_bytes, settle
from tests.bench.origin import fast_origin
from tests.bench.small import rate_of
from tests.bench.stock import BLOBS, image
from tests.e2e.mirror import Mirror

# Requested blobs, none of them twice; and those of them requested when the disk has to be read.
ASKED = 2_000
ASKED_COLD = 200

# Fills in a round.
FILLED = 2_000

STARTS = 5

# Time, in seconds, that the work of a start takes after it is ready, at most.
IDLE_SECONDS = 3.0

NEVER_ASK = """
[server]
offline = true
[tags]
fresh = "forever"
"""

DROP = Path("/proc/sys/vm/drop_caches")

Add = Callable[[str, float], None]


class Visits:
    def __init__(self, folder: Path, size: int, number: int, add: Add) -> None:
        self._folder = folder
        self._images = size // BLOBS
        self._number = number
        self._add = add

    def starts(self) -> None:
        """Measure starts with a warm page cache, and with an empty one."""
        with self._mirror(NEVER_ASK):
            pass
        times, used = zip(*(self._start() for _ in range(STARTS)), strict=True)
        self._add("ready", median(times))
        self._add("ready-cpu", median(used))
        if drop_page_cache():
            self._add("ready-cold", self._start()[0])

    def _start(self) -> tuple[float, float]:
        started = time.perf_counter()
        with self._mirror(NEVER_ASK) as mirror:
            return time.perf_counter() - started, cpu_seconds(mirror.pid)

    def hits(self) -> None:
        """Measure first requests since the start, and then the same requests again."""
        chance = random.Random(self._number)
        images = [image(chance.randrange(self._images)) for _ in range(ASKED)]
        blobs = list(dict.fromkeys(each.layer for each in images))
        tags = list(dict.fromkeys(each.by_tag for each in images))
        with self._mirror(NEVER_ASK) as mirror:
            time.sleep(IDLE_SECONDS)
            self._add("rss", rss_bytes(mirror.pid) / 1e6)
            for name, paths in (("blob", blobs), ("tag", tags)):
                for row in (name, f"{name}-memory"):
                    before = cpu_seconds(mirror.pid)
                    p50, p99 = _percentiles(mirror, paths)
                    used = cpu_seconds(mirror.pid) - before
                    self._add(row, p50)
                    self._add(f"{row}-p99", p99)
                    self._add(f"{row}-cpu", used / len(paths) * 1e6)
            self._add("rss-used", rss_bytes(mirror.pid) / 1e6)
        with self._mirror(NEVER_ASK) as mirror:
            time.sleep(IDLE_SECONDS)
            if drop_page_cache():
                self._add("blob-cold", _percentiles(mirror, blobs[:ASKED_COLD])[0])

    def fills(self, site: Site) -> None:
        """Measure fills of blobs that no round before has filled."""
        blobs = site.small(self._number * FILLED)[-FILLED:]
        with (
            fast_origin(site, site.root.parent / f"{self._images}-{self._number}") as origin,
            self._mirror("", origin.url) as mirror,
        ):
            settle()
            before = cpu_seconds(mirror.pid)
            self._add("fill", asyncio.run(rate_of(Running("mirror", mirror.address), blobs)))
            self._add("fill-cpu", (cpu_seconds(mirror.pid) - before) / len(blobs) * 1e6)
            logs = [self._folder / "cache" / side / "cache.db-wal" for side in ("blobs", "books")]
            self._add("wal", sum(each.stat().st_size for each in logs) / 1e6)

    @contextmanager
    def _mirror(self, config: str, upstream: str = "http://127.0.0.1:9") -> Iterator[Mirror]:
        file = self._folder / "mirror.toml"
        file.write_text(config)
        mirror = Mirror(self._folder, upstream, "--config", file)
        with on_core(SERVER_CORE):
            mirror.start()
        try:
            yield mirror
        finally:
            mirror.stop()


def drop_page_cache() -> bool:
    """Drop the page cache; return whether the kernel allowed that."""
    os.sync()
    with suppress(OSError):
        DROP.write_text("3")
        return True
    return False


def _percentiles(mirror: Mirror, paths: Sequence[str]) -> tuple[float, float]:
    """Return median and 99th percentile, in milliseconds, of single requests on one connection."""
    connection = Connection(mirror.address)
    try:
        cuts = quantiles((_timed(connection, path) for path in paths), n=100)
    finally:
        connection.close()
    return cuts[49] * 1000, cuts[98] * 1000


def _timed(connection: Connection, path: str) -> float:
    started = time.perf_counter()
    status, headers, body = connection.ask(path, {})
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.read()
    if status != 200:
        raise Trouble(f"{path}: {status} {body[:200]!r}")
    return time.perf_counter() - started
