"""Two workers beside one, on all cores, which the workers share with the load.

So rates only show that two are not worse; server processor time shows the cost of a second worker.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.bench.bench import Bench, check
from tests.bench.client import fetch_all, throughput, wrk
from tests.bench.cold import HERD_LINE
from tests.bench.contestants import MIRROR, ONE_WORKER, Running
from tests.bench.machine import CORES, cpu_seconds, on_core
from tests.bench.origin import Origin
from tests.e2e.origin import Authority

WORKERS = {MIRROR: 2, ONE_WORKER: 1}


def workers_small(bench: Bench) -> None:
    """Measure a config blob in memory, over 32 connections."""
    path = bench.site.warm.config.path
    with bench.origin() as origin:
        for name in bench.turns(*WORKERS):
            with _attempt(bench, "workers-small", name), _of(bench, name, origin) as server:
                wrk(server, path, 32, 1)  # each worker has its own memory
                before = cpu_seconds(server.pid)
                found = wrk(server, path, 32, bench.options.seconds)
                used = cpu_seconds(server.pid) - before
                bench.add("workers-small", name, found.rate)
                bench.add("workers-small-p99", name, found.p99)
                bench.add("workers-small-cpu", name, used / (found.rate * bench.options.seconds) * 1e6)


def workers_tls(bench: Bench) -> None:
    """Measure 100 MiB over TLS, to four clients that decrypt."""
    path = bench.site.warm.layers[0].path
    folder = bench.folder()
    folder.mkdir()
    authority = Authority(folder, "localhost")
    with bench.origin() as origin:
        for name in bench.turns(*WORKERS):
            with _attempt(bench, "workers-tls", name), _of(bench, name, origin, authority) as server:
                check(server, path)
                before = cpu_seconds(server.pid)
                rate = throughput(server, path, 4, bench.options.seconds)
                used = cpu_seconds(server.pid) - before
                bench.add("workers-tls", name, rate / 1e9)
                bench.add("workers-tls-cpu", name, used / (rate * bench.options.seconds / 1e9))


def workers_herd(bench: Bench) -> None:
    """Measure 50 clients of both workers that ask for one cold blob of 100 MiB at once."""
    blob = bench.site.herd.layers[0]
    with bench.behind(HERD_LINE) as origin:
        for name in bench.turns(*WORKERS):
            with _attempt(bench, "workers-herd", name), _of(bench, name, origin) as server:
                origin.forget()
                found = fetch_all(server, [blob.path] * 50, 50)
                bench.add("workers-herd", name, max(each.whole for each in found))
                bench.add("workers-herd-upstream", name, origin.sent(blob) / blob.size)
                check(server, blob.path)


def _of(
    bench: Bench, name: str, origin: Origin, authority: Authority | None = None
) -> AbstractContextManager[Running]:
    return bench.cold(name, origin, authority=authority, workers=WORKERS[name])


@contextmanager
def _attempt(bench: Bench, work: str, name: str) -> Iterator[None]:
    """Attempt with the load on all cores."""
    with bench.attempt(work, name), on_core(*CORES):
        yield
