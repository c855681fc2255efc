"""Cold content: one large blob, a herd, an image over a slow line."""

import time
from statistics import median

from tests.bench.bench import Bench, check
from tests.bench.client import fetch, fetch_all
from tests.bench.contestants import DIRECT, DISTRIBUTION, DISTRIBUTION_3, MIRROR, PROXY, Running
from tests.bench.machine import backed_memory, cpu_seconds, until_idle
from tests.bench.origin import Origin
from tests.bench.throttle import Line

ALL = (MIRROR, DISTRIBUTION, PROXY, DIRECT)

HERD_LINE = Line(rate=20e6, rtt=0)
WAN_LINE = Line(rate=4e6, rtt=0.15)

# Memory of a server besides the blob, in bytes: buffers, its own and the kernel's.
BESIDES = 256 * 1024 * 1024


def cold_gib(bench: Bench, *, secure: bool = False) -> None:
    """Measure one client and one blob without a throttle; token and connections to the origin are warm.

    `secure`: the origin speaks TLS, as every public registry does; the client does not.
    """
    blob, work = bench.site.giant.layers[0], "cold-gib-tls" if secure else "cold-gib"
    with bench.origin(secure=secure) as origin:
        for name in bench.turns(*ALL, DISTRIBUTION_3):
            with bench.attempt(work, name), bench.cold(name, origin) as server:
                fetch(server, f"/v2/{blob.repository}/manifests/token")
                _one_cold(bench, server, origin, work)


def _one_cold(bench: Bench, server: Running, origin: Origin, work: str) -> None:
    blob = bench.site.giant.layers[0]
    origin.forget()
    before = cpu_seconds(server.pid) if server.process else 0.0
    with backed_memory(blob.size + BESIDES):
        found = fetch(server, blob.path)
    bench.add(f"{work}-wall", server.name, found.whole)
    bench.add(f"{work}-first", server.name, found.first * 1000)
    if server.process is None:
        return
    until_idle(server.pid)  # distribution fetches the blob a second time, to store it
    bench.add(f"{work}-cpu", server.name, (cpu_seconds(server.pid) - before) / (blob.size / 1e9))
    bench.add(f"{work}-upstream", server.name, origin.sent(blob) / blob.size)
    check(server, blob.path)


def herd(bench: Bench) -> None:
    """Measure 50 clients that ask for one blob at once; direct is one client alone."""
    blob = bench.site.herd.layers[0]
    with bench.behind(HERD_LINE) as origin:
        for name in bench.turns(*ALL):
            with bench.attempt("herd", name), bench.cold(name, origin) as server:
                origin.forget()
                clients = 1 if name == DIRECT else 50
                with backed_memory(blob.size + BESIDES):
                    found = fetch_all(server, [blob.path] * clients, clients)
                bench.add("herd-last", name, max(each.whole for each in found))
                bench.add("herd-first", name, median(each.first for each in found))
                if name != DIRECT:
                    until_idle(server.pid)
                    bench.add("herd-upstream", name, origin.sent(blob) / blob.size)
                    check(server, blob.path)


def slow_wan(bench: Bench) -> None:
    """Measure a pull like dockerd's: manifest, config and layers, three at a time; then the tag again."""
    image = bench.site.wan
    paths = [blob.path for blob in (image.config, *image.layers)]
    with bench.behind(WAN_LINE) as origin:
        for name in bench.turns(*ALL):
            with bench.attempt("slow-wan", name), bench.cold(name, origin) as server:
                started = time.perf_counter()
                fetch(server, image.by_tag)
                fetch_all(server, paths, 3)
                bench.add("slow-wan", name, time.perf_counter() - started)
                if name != DIRECT:
                    bench.add("slow-wan-tag", name, fetch(server, image.by_tag).whole * 1000)
                    for path in paths:
                        check(server, path)
