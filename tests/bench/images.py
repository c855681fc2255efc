"""Many different images at once, as a cluster pulls them that starts."""

import time
from concurrent.futures import ThreadPoolExecutor

from tests.bench.bench import Bench, check
from tests.bench.client import fetch, fetch_all
from tests.bench.content import Image
from tests.bench.contestants import DIRECT, DISTRIBUTION, DISTRIBUTION_3, MIRROR, PROXY, Running
from tests.bench.machine import cpu_seconds, until_idle
from tests.bench.throttle import Line

CLIENTS = 20

# dockerd's and containerd's number of layers at a time.
LAYERS_AT_A_TIME = 3

LINE = Line(rate=4e6, rtt=0.02)


def many_images(bench: Bench) -> None:
    """Measure clients that pull a tenth of the images each, one behind the other: each image twice."""
    images = bench.site.many
    size = sum(layer.size for image in images for layer in image.layers)
    with bench.behind(LINE) as origin:
        for name in bench.turns(MIRROR, DISTRIBUTION, DISTRIBUTION_3, PROXY, DIRECT):
            with bench.attempt("many-images", name), bench.cold(name, origin) as server:
                origin.forget()
                before = cpu_seconds(server.pid) if server.process else 0.0
                bench.add("many-images", name, _pulled(server, images))
                if server.process is None:
                    continue
                until_idle(server.pid)
                bench.add("many-images-cpu", name, (cpu_seconds(server.pid) - before) / (size / 1e9))
                sent = sum(origin.sent(layer) for image in images for layer in image.layers)
                bench.add("many-images-upstream", name, sent / size)
                for layer in images[-1].layers:
                    check(server, layer.path)


def _pulled(server: Running, images: list[Image]) -> float:
    """Pull the images, and return the seconds until the last one has arrived."""
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        # The second client of an image comes to it later.
        shares = (
            images[client::CLIENTS] + images[(client + CLIENTS // 2) % CLIENTS :: CLIENTS]
            for client in range(CLIENTS)
        )
        list(pool.map(lambda share: _pull(server, share), shares))  # waits
    return time.perf_counter() - started


def _pull(server: Running, images: list[Image]) -> None:
    for image in images:
        fetch(server, image.by_tag)
        fetch_all(server, [blob.path for blob in (image.config, *image.layers)], LAYERS_AT_A_TIME)
