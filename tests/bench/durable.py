"""Cost of durable writes, with a blob on the disk before its name: `durability = "safe"` beside "fast".

The disk is that of the bench's folder. The mirror is "safe" by default.
"""

import asyncio
import time

from tests.bench.bench import Bench, check
from tests.bench.client import fetch, fetch_all
from tests.bench.contestants import FAST, MIRROR
from tests.bench.machine import file_system
from tests.bench.small import rate_of

# Fills of medium blobs: how many at a time, and in all.
CLIENTS = 8
MEDIUM = 400


def durability(bench: Bench) -> None:
    """Measure cold blobs of 2 KiB (verified at each read and never synced), of 512 KiB, and of 1 GiB."""
    quick = bench.options.quick
    small = bench.site.small(1000 if quick else bench.options.small)
    medium = bench.site.medium(50 if quick else MEDIUM)
    giant = bench.site.giant.layers[0]
    bench.note(f"durability: the cache is on {file_system(bench.site.root)}")
    with bench.origin() as origin:
        for name in bench.turns(MIRROR, FAST):
            config = f'[cache]\ndurability = "{"fast" if name == FAST else "safe"}"\n'
            with bench.attempt("durability", name), bench.cold(name, origin, config) as server:
                fetch(server, small[0].path)
                bench.add("durable-small", name, asyncio.run(rate_of(server, small[1:])))
                started = time.perf_counter()
                fetch_all(server, [each.path for each in medium], CLIENTS)
                bench.add("durable-medium", name, len(medium) / (time.perf_counter() - started))
                bench.add("durable-giant", name, fetch(server, giant.path).whole)
                check(server, medium[-1].path)
