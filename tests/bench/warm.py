"""Warm content: large blobs by throughput, small responses by rate.

Server processor time is measured too, which is the same on a machine that other programs use.
"""

from tests.bench.bench import Bench
from tests.bench.client import throughput, wrk, wrk_ranges
from tests.bench.contestants import DISTRIBUTION, MIRROR, PROXY, STATIC
from tests.bench.machine import cpu_seconds

ALL = (MIRROR, DISTRIBUTION, PROXY, STATIC)


def warm_blob(bench: Bench, connections: int) -> None:
    """Measure GB/s of a blob of 100 MiB, over kept connections."""
    row = f"warm-blob-{connections}"
    for name in bench.turns(*ALL):
        with bench.attempt(row, name):
            server, path = bench.warm(name), bench.site.warm.layers[0].path
            before = cpu_seconds(server.pid)
            rate = throughput(server, path, connections, bench.options.seconds)
            used = cpu_seconds(server.pid) - before
            bench.add(row, name, rate / 1e9)
            bench.add(f"{row}-cpu", name, used / (rate * bench.options.seconds / 1e9))


def manifest_by_digest(bench: Bench) -> None:
    for connections in (1, 32, 256):
        _small(bench, "manifest-digest", bench.site.warm.by_digest, connections)


def manifest_by_tag(bench: Bench) -> None:
    for connections in (1, 32, 256):
        _small(bench, "manifest-tag", bench.site.warm.by_tag, connections)


def config_blob(bench: Bench) -> None:
    _small(bench, "config-blob", bench.site.warm.config.path, 32)


def ranges(bench: Bench) -> None:
    """Measure requests for 1 KiB anywhere in a blob of 100 MiB, as lazy snapshotters and loaders ask."""
    blob, connections = bench.site.warm.layers[0], 16
    for name in bench.turns(*ALL):
        with bench.attempt("ranges", name):
            server = bench.warm(name)
            before = cpu_seconds(server.pid)
            found = wrk_ranges(server, blob, bench.folder(), connections, bench.options.seconds)
            used = cpu_seconds(server.pid) - before
            bench.add("ranges", name, found.rate)
            bench.add("ranges-p99", name, found.p99)
            bench.add("ranges-cpu", name, used / (found.rate * bench.options.seconds) * 1e6)


def _small(bench: Bench, work: str, path: str, connections: int) -> None:
    row = f"{work}-{connections}"
    for name in bench.turns(*ALL):
        with bench.attempt(row, name):
            server = bench.warm(name)
            before = cpu_seconds(server.pid)
            found = wrk(server, path, connections, bench.options.seconds)
            used = cpu_seconds(server.pid) - before
            bench.add(row, name, found.rate)
            if connections == 32:
                bench.add(f"{row}-p99", name, found.p99)
                bench.add(f"{row}-cpu", name, used / (found.rate * bench.options.seconds) * 1e6)
