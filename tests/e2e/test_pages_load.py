"""The page Now beside Docker that pulls many images: it keeps up, and what it costs is written down.

`PAGES_IMAGES` and `PAGES_MEGABYTES` say how many images there are, and how large each is. The run leaves
its figures in its folder; in the one that PAGES_PICTURES names, if it is set, with pictures of the page.
"""

import asyncio
import http.client
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import pytest
from msgspec import Struct, to_builtins
from playwright.async_api import FloatRect, ViewportSize, async_playwright

from tests.e2e.clients import Docker, docker
from tests.e2e.images import Pusher, push_big, tar_of
from tests.e2e.mirror import Mirror
from tests.e2e.origin import origin, unprotected
from tests.e2e.processes import free_port
from tests.programs import program

IMAGES = int(os.environ.get("PAGES_IMAGES", "20"))
MEGABYTES = int(os.environ.get("PAGES_MEGABYTES", "25"))
WORKERS = 3

# Pulls that run at a time, and bytes a second of each connection to the CDN: the line is busy for a while.
AT_A_TIME, LIMIT = 4, "limit_rate 1m;"

# Time, in seconds, for which the page is open, and then closed.
PERIOD = 5

# Most memory, in bytes, that a page may take which is the first one at its worker.
MOST_MEMORY = 20_000_000

TICKS = os.sysconf("SC_CLK_TCK")

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(900),
    pytest.mark.needs("docker-registry", "nginx", "dockerd", "docker", "containerd", "chromium", root=True),
]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of one layer each, none of which is like another."""
    folder, push = tmp_path_factory.mktemp("many"), tmp_path_factory.mktemp("push-many")
    noise = random.Random(3).randbytes(MEGABYTES * 1_000_000)
    with unprotected(folder, push) as url:
        to = Pusher(url)
        for number in range(IMAGES):
            layer = push / "layer.tar"
            layer.write_bytes(tar_of({f"noise{number}": noise}))
            push_big(to, f"library/app{number}:1", layer)
    return folder


class Use(Struct):
    """Seconds, processor time of all processes of a mirror in them, and bytes that it received."""

    seconds: float = 0.0
    cpu: float = 0.0
    received: float = 0.0

    @property
    def share(self) -> float:
        """The share of a core."""
        return self.cpu / self.seconds


class Meter:
    """Meter of the processes of a mirror; of their memory each page counts once, in bytes."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    @contextmanager
    def reading(self, use: Use) -> Iterator[None]:
        """Add to `use` what is used meanwhile."""
        began, cpu, received = time.monotonic(), self._cpu(), self._mirror.received()
        yield
        use.seconds += time.monotonic() - began
        use.cpu += self._cpu() - cpu
        use.received += self._mirror.received() - received

    def memory(self) -> int:
        texts = [_text(each / "smaps_rollup") for each in self._processes()]
        sums = [int(line.split()[1]) for text in texts for line in text.splitlines() if line[:4] == "Pss:"]
        return sum(sums) * 1024

    def _cpu(self) -> float:
        fields = [_text(each / "stat").rpartition(")")[2].split() for each in self._processes()]
        return sum(int(each[11]) + int(each[12]) for each in fields if each) / TICKS

    def _processes(self) -> list[Path]:
        stats = ((each, _text(each / "stat")) for each in Path("/proc").glob("[0-9]*"))
        return [
            each for each, text in stats if text.rpartition(")")[2].split()[2:3] == [str(self._mirror.pid)]
        ]


def _text(path: Path) -> str:
    """Return the text of a process; "" for one that has just ended."""
    with suppress(OSError):
        return path.read_text()
    return ""


class Page:
    """The page Now, open: the gaps between its events in seconds, and the parts with most transfers."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self.largest = ""

    @contextmanager
    def open(self, port: int) -> Iterator[None]:
        """Follow the events meanwhile."""
        end = Event()
        thread = Thread(target=self._follow, args=(port, end))
        thread.start()
        yield
        end.set()
        thread.join()

    def _follow(self, port: int, end: Event) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/?part=events")
        reply, moments = connection.getresponse(), list[float]()
        while not end.is_set():
            line = reply.readline()
            if line.startswith(b"data: "):
                moments.append(time.monotonic())
                parts = json.loads(line[6:])["parts"]
                text = "".join(parts.get(name, "") for name in ("now_running", "now_downloads"))
                self.largest = max(self.largest, text, key=lambda text: text.count("<progress"))
        connection.close()
        # The second event comes at the next full second, as those of all pages do.
        self.gaps += [after - before for before, after in pairwise(moments[1:])]


@contextmanager
def pulling(client: Docker) -> Iterator[Callable[[], bool]]:
    """Pull each image once, and remove it; yield what tells whether all are done."""

    def pull(name: str) -> None:
        client("pull", "-q", name)
        client("rmi", name)

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        pulls = [pool.submit(pull, f"app{number}:1") for number in range(IMAGES)]
        yield lambda: all(each.done() for each in pulls)
        for each in pulls:
            each.result()


@contextmanager
def scene(storage: Path, folder: Path, short: Path) -> Iterator[tuple[Mirror, Docker, int]]:
    """A mirror of several workers with pages, a registry in front of it, and Docker."""
    port = free_port()
    config = folder / "mirror.toml"
    config.write_text(
        f'[server]\nworkers = {WORKERS}\n[admin]\nlisten = ["127.0.0.1:{port}"]\n[fill]\nprefetch = 0\n'
    )
    with (
        origin(storage, folder / "origin", LIMIT) as hub,
        Mirror(folder / "mirror", hub.url, "--config", config) as mirror,
        docker(short / "docker", [mirror.url]) as client,
    ):
        yield mirror, client, port


def test_page_keeps_up_with_docker(storage: Path, tmp_path: Path, short: Path, blockbuster: Any) -> None:
    """An event comes each second as long as Docker pulls; the page is open every other PERIOD."""
    page, closed, seen = Page(), Use(), Use()
    with scene(storage, tmp_path, short) as (mirror, client, port):
        meter = Meter(mirror)
        before, resting = _memory(meter, page, port)
        shot = Thread(target=_picture, args=(port,)) if os.environ.get("PAGES_PICTURES") else None
        if shot is not None:
            blockbuster.deactivate()  # the driver of the browser may block its loop
        with pulling(client) as is_done:
            time.sleep(2)
            while not is_done():
                with meter.reading(closed):
                    time.sleep(PERIOD)
                with page.open(port):
                    time.sleep(1)  # the first event has everything
                    with meter.reading(seen):
                        time.sleep(PERIOD)
                if shot is not None and shot.ident is None:
                    shot.start()
                    shot.join()
        if shot is not None:
            blockbuster.activate()
        after = _memory(meter, page, port)
    figures = {
        "closed": {**to_builtins(closed), "share": closed.share},
        "open": {**to_builtins(seen), "share": seen.share},
        "more_share": seen.share - closed.share,
        "more_share_for_the_same_bytes": seen.share
        - closed.cpu / closed.received * seen.received / seen.seconds,
        "events": len(page.gaps),
        "median_gap": median(page.gaps),
        "longest_gap": max(page.gaps),
        "more_memory_before_the_pulls": resting - before,
        "more_memory_behind_them": after[1] - after[0],
        "memory_before_and_behind": [before, after[0]],
    }
    folder = Path(os.environ.get("PAGES_PICTURES", tmp_path))
    (folder / "load.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))  # pytest -s shows it
    assert page.largest.count("<progress") >= 2
    assert "docker.io/library/app" in page.largest
    # The page is told once a second; the rest is for a machine on which this test is not alone.
    assert median(page.gaps) <= 1.25, figures
    assert resting - before < MOST_MEMORY, figures


def _memory(meter: Meter, page: Page, port: int) -> tuple[int, int]:
    """Return the memory of a mirror at rest, without the page and with it."""
    without = meter.memory()
    with page.open(port):
        time.sleep(3)
        return without, meter.memory()


def _picture(port: int) -> None:
    asyncio.run(_shoot(port))


async def _shoot(port: int) -> None:
    async with async_playwright() as driver:
        chromium = await driver.chromium.launch(executable_path=program("chromium"), args=["--no-sandbox"])
        size = ViewportSize(width=1280, height=860)
        page = await chromium.new_page(viewport=size, color_scheme="light", reduced_motion="reduce")
        await page.goto(f"http://127.0.0.1:{port}/")
        for number in range(5):
            await asyncio.sleep(2)
            bottom = await page.evaluate(
                "document.getElementById('fills-title').parentElement.getBoundingClientRect().bottom"
            )
            path = f"{os.environ['PAGES_PICTURES']}/load-{number}.png"
            clip = FloatRect(x=0, y=0, width=1280, height=bottom + 16)
            await page.screenshot(path=path, full_page=True, clip=clip)
        await chromium.close()
