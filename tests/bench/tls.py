"""Warm blob over TLS, where no sendfile helps."""

from mirror.config.server import ServerSettings
from tests.bench.bench import Bench, check
from tests.bench.client import throughput
from tests.bench.contestants import MIRROR, STATIC
from tests.bench.machine import cpu_seconds
from tests.e2e.origin import Authority


def tls_blob(bench: Bench) -> None:
    """Measure GB/s with one client, which decrypts on the core of the load, and the cost for the server."""
    if "tls_certificate" not in ServerSettings.options():
        bench.note("tls-blob: this version of the mirror does not serve TLS")
        return
    path = bench.site.warm.layers[0].path
    folder = bench.folder()
    folder.mkdir()
    authority = Authority(folder, "localhost")
    with bench.origin() as origin:
        for name in bench.turns(MIRROR, STATIC):
            with bench.attempt("tls-blob", name), bench.cold(name, origin, authority=authority) as server:
                check(server, path)
                before = cpu_seconds(server.pid)
                rate = throughput(server, path, 1, bench.options.seconds)
                used = cpu_seconds(server.pid) - before
                bench.add("tls-blob", name, rate / 1e9)
                bench.add("tls-blob-cpu", name, used / (rate * bench.options.seconds / 1e9))
