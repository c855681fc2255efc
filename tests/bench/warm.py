"""What is served from the cache: large blobs by throughput, small answers by rate."""

from tests.bench.bench import Bench
from tests.bench.client import throughput, wrk
from tests.bench.contestants import DISTRIBUTION, MIRROR, PROXY, STATIC

ALL = (MIRROR, DISTRIBUTION, PROXY, STATIC)


def warm_blob(bench: Bench, connections: int) -> None:
    """GB/s of a blob of 100 MiB, over connections that are kept."""
    row = f"warm-blob-{connections}"
    for name in bench.turns(*ALL):
        with bench.attempt(row, name):
            path = bench.site.warm.layers[0].path
            rate = throughput(bench.warm(name), path, connections, bench.options.seconds)
            bench.add(row, name, rate / 1e9)


def manifest_by_digest(bench: Bench) -> None:
    for connections in (1, 32, 256):
        _small(bench, "manifest-digest", bench.site.warm.by_digest, connections)


def manifest_by_tag(bench: Bench) -> None:
    for connections in (1, 32, 256):
        _small(bench, "manifest-tag", bench.site.warm.by_tag, connections)


def config_blob(bench: Bench) -> None:
    _small(bench, "config-blob", bench.site.warm.config.path, 32)


def _small(bench: Bench, work: str, path: str, connections: int) -> None:
    row = f"{work}-{connections}"
    for name in bench.turns(*ALL):
        with bench.attempt(row, name):
            found = wrk(bench.warm(name), path, connections, bench.options.seconds)
            bench.add(row, name, found.rate)
            if connections == 32:
                bench.add(f"{row}-p99", name, found.p99)
