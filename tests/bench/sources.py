"""A good source, and one beside it that stalls in mid-blob."""

from dataclasses import replace

from tests.bench.bench import Bench, check
from tests.bench.client import fetch
from tests.bench.cold import WAN_LINE
from tests.bench.contestants import ALONE, MIRROR

STALLING = replace(WAN_LINE, stall_after=10_000_000)

CONFIG = """
[[upstream]]
name = "docker.io"
sources = [{{ url = "{url}" }}]
"""


def two_sources(bench: Bench) -> None:
    """100 MiB, cold: from the upstream alone, and with a source that gives 10 MB and then nothing more."""
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
