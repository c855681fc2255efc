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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import pytest
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


class Cost:
    """Processor time of all processes of a mirror, in seconds, and their memory, in bytes."""

    def __init__(self, mirror: Mirror) -> None:
        self._group = mirror.pid
        self._began, self._cpu = time.monotonic(), self.cpu()
        self.memory = 0

    def cpu(self) -> float:
        fields = [_text(each / "stat").rpartition(")")[2].split() for each in self._processes()]
        return sum(int(each[11]) + int(each[12]) for each in fields if each) / TICKS

    def look(self) -> None:
        """Take note of the memory, each page of it once: the largest sum counts."""
        texts = [_text(each / "smaps_rollup") for each in self._processes()]
        sums = [int(line.split()[1]) for text in texts for line in text.splitlines() if line[:4] == "Pss:"]
        self.memory = max(self.memory, sum(sums) * 1024)

    def figures(self) -> dict[str, float]:
        seconds = time.monotonic() - self._began
        cpu = self.cpu() - self._cpu
        return {"seconds": seconds, "cpu": cpu, "share": cpu / seconds, "memory": self.memory}

    def _processes(self) -> list[Path]:
        stats = ((each, _text(each / "stat")) for each in Path("/proc").glob("[0-9]*"))
        return [each for each, text in stats if text.rpartition(")")[2].split()[2:3] == [str(self._group)]]


def _text(path: Path) -> str:
    """Return the text of a process; "" for one that has just ended."""
    with suppress(OSError):
        return path.read_text()
    return ""


class Page:
    """The moments of the events of the page Now, and the event with most transfers."""

    def __init__(self, port: int) -> None:
        self.moments: list[float] = []
        self.largest = ""
        self._port = port
        self._end = Event()
        self._thread = Thread(target=self._follow)

    def __enter__(self) -> "Page":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _follow(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", "/?part=events")
        reply = connection.getresponse()
        while not self._end.is_set():
            line = reply.readline()
            if line.startswith(b"data: "):
                self.moments.append(time.monotonic())
                parts = json.loads(line[6:])["parts"]
                text = "".join(parts.get(name, "") for name in ("now_running", "now_downloads"))
                self.largest = max(self.largest, text, key=lambda text: text.count("<progress"))
        connection.close()


def pull_all(client: Docker, cost: Cost) -> None:
    """Pull each image once; look at the memory meanwhile."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        pulls = [pool.submit(client, "pull", "-q", f"app{number}:1") for number in range(IMAGES)]
        while not all(each.done() for each in pulls):
            cost.look()
            time.sleep(0.5)
        for each in pulls:
            each.result()


@contextmanager
def scene(storage: Path, folder: Path, short: Path) -> Iterator[tuple[Mirror, Docker, int]]:
    """A mirror of several workers with pages, a registry in front of it, and Docker."""
    port = free_port()
    folder.mkdir()
    config = folder / "mirror.toml"
    config.write_text(
        f'[server]\nworkers = {WORKERS}\n[admin]\nlisten = ["127.0.0.1:{port}"]\n[fill]\nprefetch = 0\n'
    )
    with (
        origin(storage, folder / "origin", LIMIT) as hub,
        Mirror(folder / "mirror", hub.url, "--config", config) as mirror,
        docker(short, [mirror.url]) as client,
    ):
        yield mirror, client, port


def test_page_keeps_up_with_docker(storage: Path, tmp_path: Path, short: Path, blockbuster: Any) -> None:
    """An event comes each second as long as Docker pulls; pulls without a page are for comparison."""
    with scene(storage, tmp_path / "alone", short / "alone") as (mirror, client, _):
        alone = Cost(mirror)
        pull_all(client, alone)
        without = alone.figures()
    with scene(storage, tmp_path / "seen", short / "seen") as (mirror, client, port), Page(port) as page:
        cost = Cost(mirror)
        shot = Thread(target=_picture, args=(port,)) if os.environ.get("PAGES_PICTURES") else None
        if shot is not None:
            blockbuster.deactivate()  # the driver of the browser may block its loop
            shot.start()
        pull_all(client, cost)
        beside = cost.figures()
        if shot is not None:
            shot.join()
            blockbuster.activate()
        gaps = [after - before for before, after in pairwise(page.moments)]
    figures = {
        "without": without,
        "with": beside,
        "updates": len(page.moments),
        "median_gap": median(gaps),
        "longest_gap": max(gaps),
        "more_memory": beside["memory"] - without["memory"],
        "more_share": (beside["cpu"] - without["cpu"]) / beside["seconds"],
    }
    folder = Path(os.environ.get("PAGES_PICTURES", tmp_path))
    (folder / "load.json").write_text(json.dumps(figures, indent=1))
    assert page.largest.count("<progress") >= 2
    assert "docker.io/library/app" in page.largest
    # The page is told once a second; the rest is for a machine on which this test is not alone.
    assert median(gaps) <= 1.25, figures
    assert len(gaps) >= 3, figures


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
