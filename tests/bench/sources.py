"""Bad sources: one that stalls beside a good one, and one that breaks off."""

from dataclasses import replace

from tests.bench.bench import Bench, check
from tests.bench.client import fetch
from tests.bench.cold import WAN_LINE
from tests.bench.contestants import ALONE, MIRROR

STALLING = replace(WAN_LINE, stall_after=10_000_000)
LOSSY = replace(WAN_LINE, fault_every=10_000_000)

CONFIG = """
[[upstream]]
name = "docker.io"
sources = [{{ url = "{url}" }}]
"""


def two_sources(bench: Bench) -> None:
    """Measure cold 100 MiB from the upstream alone, and with a source that stalls after 10 MB."""
    blob = bench.site.herd.layers[0]
    for name in bench.turns(ALONE, MIRROR):
        with (
            bench.attempt("two-sources", name),
            bench.behind(WAN_LINE) as good,
            bench.behind(STALLING) as stalling,
        ):
            config = CONFIG.format(url=stalling.url) if name == MIRROR else ""
            with bench.cold(name, good, config) as server:
                bench.add("two-sources", name, fetch(server, blob.path).whole)
                if name == MIRROR and stalling.sent(blob) == 0:
                    bench.note("two-sources: the stalling source was never asked")
                check(server, blob.path)


def lossy_source(bench: Bench) -> None:
    """Measure cold 100 MiB: after each 10 MB a transfer breaks off or falls silent; alone none does."""
    blob = bench.site.herd.layers[0]
    for name in bench.turns(ALONE, MIRROR):
        line = LOSSY if name == MIRROR else WAN_LINE
        with (
            bench.attempt("lossy-source", name),
            bench.behind(line) as origin,
            bench.cold(name, origin) as server,
        ):
            bench.add("lossy-source", name, fetch(server, blob.path).whole)
            bench.add("lossy-source-upstream", name, origin.sent(blob) / blob.size)
            check(server, blob.path)
