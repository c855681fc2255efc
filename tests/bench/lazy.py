"""Clients that pull by ranges: one layer in parallel parts, and many small parts in one request."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

from tests.bench.bench import Bench, check
from tests.bench.client import Connection, Trouble, fetch
from tests.bench.content import MIB, Blob
from tests.bench.contestants import DISTRIBUTION, DISTRIBUTION_3, MIRROR, PROXY, STATIC, Running
from tests.bench.machine import backed_memory, cpu_seconds, until_idle

# Bottlerocket's client, and those of containerd 2.3: parts of a layer at a time.
PARTS, PART_BYTES = 32, 8 * MIB

# stargz-snapshotter: parts of a layer in one request.
MULTI_PARTS, MULTI_BYTES, MULTI_REQUESTS, MULTI_CONNECTIONS = 20, 50_000, 200, 8


def parallel_ranges(bench: Bench) -> None:
    """Measure a cold 1 GiB blob in 32 parallel ranges of 8 MiB, from an upstream over TLS.

    `whole`: the same mirror, another cold start, one plain GET.
    """
    blob = bench.site.giant.layers[0]
    with bench.origin(secure=True) as origin:
        for name in bench.turns(MIRROR, DISTRIBUTION, DISTRIBUTION_3, PROXY):
            with bench.attempt("parallel-ranges", name), bench.cold(name, origin) as server:
                fetch(server, f"/v2/{blob.repository}/manifests/token")
                origin.forget()
                with backed_memory(blob.size):
                    started = time.perf_counter()
                    with ThreadPoolExecutor(PARTS) as pool:
                        parts = range(0, blob.size, PART_BYTES)
                        list(pool.map(lambda start: _part(server, blob, start), parts))  # waits
                    bench.add("parallel-ranges", name, time.perf_counter() - started)
                until_idle(server.pid)
                bench.add("parallel-ranges-upstream", name, origin.sent(blob) / blob.size)
                check(server, blob.path)
        with bench.attempt("parallel-ranges", MIRROR), bench.cold(MIRROR, origin) as server:
            fetch(server, f"/v2/{blob.repository}/manifests/token")
            with backed_memory(blob.size):
                bench.add("parallel-ranges-whole", MIRROR, fetch(server, blob.path).whole)


def _part(server: Running, blob: Blob, start: int) -> None:
    stop = min(start + PART_BYTES, blob.size)
    connection = Connection(server.address)
    try:
        _ask(connection, server, blob, f"bytes={start}-{stop - 1}", stop - start)
    finally:
        connection.close()


def _ask(connection: Connection, server: Running, blob: Blob, ranges: str, least: int) -> None:
    """Ask for ranges, and have the kernel discard the body. Trouble if it is shorter than `least`."""
    status, headers, rest = connection.ask(blob.path, {**server.headers, "Range": ranges})
    if status != 206:
        raise Trouble(f"{status} for {ranges[:60]}")
    left = int(headers["content-length"]) - len(rest)
    if left + len(rest) < least:
        raise Trouble(f"{left + len(rest)} bytes for {ranges[:60]}")
    while left > 0:
        left -= connection.skip()


def multi_ranges(bench: Bench) -> None:
    """Measure 200 requests for 20 ranges of 50 kB each of a warm 100 MiB blob, over 8 connections."""
    blob = bench.site.warm.layers[0]
    for name in bench.turns(MIRROR, STATIC):
        with bench.attempt("multi-ranges", name):
            server = bench.warm(name)
            before, started = cpu_seconds(server.pid), time.perf_counter()
            with ThreadPoolExecutor(MULTI_CONNECTIONS) as pool:
                each = MULTI_REQUESTS // MULTI_CONNECTIONS
                list(pool.map(lambda seed: _scattered(server, blob, seed, each), range(MULTI_CONNECTIONS)))  # noqa: B023  # waits
            taken = time.perf_counter() - started
            bench.add("multi-ranges", name, MULTI_REQUESTS / taken)
            bench.add("multi-ranges-cpu", name, (cpu_seconds(server.pid) - before) / MULTI_REQUESTS * 1000)


def _scattered(server: Running, blob: Blob, seed: int, requests: int) -> None:
    numbers = random.Random(seed)
    connection = Connection(server.address)
    try:
        for _ in range(requests):
            step = blob.size // MULTI_PARTS
            starts = [number * step + numbers.randrange(step - MULTI_BYTES) for number in range(MULTI_PARTS)]
            ranges = ",".join(f"{start}-{start + MULTI_BYTES - 1}" for start in starts)
            _ask(connection, server, blob, f"bytes={ranges}", MULTI_PARTS * MULTI_BYTES)
    finally:
        connection.close()
