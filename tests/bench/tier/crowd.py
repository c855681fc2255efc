"""python -m tests.bench.tier.crowd: clients in a process of its own, for a namespace of its own.

It reads one line of JSON, says "ready", waits for another line, and prints what it has measured as JSON.
Received bytes are discarded by the kernel, but those of the first client, which are hashed.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Self

from tests.bench.client import Trouble, fetch, throughput
from tests.bench.content import Image
from tests.bench.contestants import Running
from tests.bench.tier.network import Node

# Layers that one client pulls at a time, as Docker does.
LAYERS = 3


@dataclass(frozen=True)
class Order:
    """Work of a crowd: `clients` that pull all `blobs` of an image; or read one blob for `seconds`."""

    address: str
    clients: int
    manifest: str = ""
    blobs: list[str] = field(default_factory=list)
    seconds: float = 0.0
    verify: bool = True


@dataclass(frozen=True)
class Found:
    """Seconds of each pull that succeeded, failures of the others, and bytes of all together."""

    seconds: list[float]
    first: list[float]
    failures: list[str]
    bytes: int
    elapsed: float


def order(address: str, image: Image, clients: int, *, verify: bool = True) -> Order:
    """Return the order to pull an image; the first client hashes it if `verify`."""
    blobs = [each.path for each in (image.config, *image.layers)]
    return Order(address, clients, image.by_tag, blobs, verify=verify)


class Crowd:
    """A crowd in another process; `with` waits until it is ready, and ends it."""

    def __init__(self, node: Node, order: Order) -> None:
        command = [sys.executable, "-m", "tests.bench.tier.crowd"]
        with node.inside():
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, text=True
            )
        self._say(json.dumps(asdict(order)))

    def go(self) -> None:
        """Have it begin, once it is ready."""
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer == "ready\n", f"crowd: {answer!r}"
        self._say("go")

    def result(self) -> Found:
        """Wait for its end; return what it has measured."""
        assert self._process.stdout is not None
        text = self._process.stdout.read()
        assert self._process.wait() == 0, f"a crowd ended with {self._process.returncode}"
        return Found(**json.loads(text))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def work(order: Order) -> Found:
    """Do what is ordered."""
    return _read(order) if order.seconds else _pull_all(order)


def _read(order: Order) -> Found:
    started = time.perf_counter()
    rate = throughput(Running("", order.address), order.blobs[0], order.clients, order.seconds)
    elapsed = time.perf_counter() - started
    return Found([], [], [], int(rate * elapsed), elapsed)


def _pull_all(order: Order) -> Found:
    seconds, firsts, failures, total = [], [], [], 0
    started = time.perf_counter()
    with ThreadPoolExecutor(order.clients) as pool:
        pulls = [pool.submit(_pull, order, order.verify and number == 0) for number in range(order.clients)]
        for each in pulls:
            try:
                size, first, whole = each.result()
            except Trouble as trouble:
                failures.append(str(trouble))
                continue
            total += size
            firsts.append(first)
            seconds.append(whole)
    return Found(seconds, firsts, failures, total, time.perf_counter() - started)


def _pull(order: Order, verify: bool) -> tuple[int, float, float]:
    """Pull the image; return its bytes, the seconds to the first byte of a blob, and to the last."""
    server, started = Running("", order.address), time.perf_counter()
    fetch(server, order.manifest)
    begun = time.perf_counter() - started

    def get(path: str) -> tuple[int, float]:
        found = fetch(server, path, verify)
        if verify and found.digest != path.rpartition("/")[2]:
            raise Trouble(f"wrong bytes at {path}")
        return found.size, found.first

    with ThreadPoolExecutor(LAYERS) as pool:
        found = list(pool.map(get, order.blobs))
    return sum(size for size, _ in found), begun + found[0][1], time.perf_counter() - started


def last(crowds: Sequence[Found]) -> float:
    """Return the seconds of the last client of all crowds."""
    return max(max(each.seconds, default=0.0) for each in crowds)


def main() -> None:
    """Serve one order."""
    threading.stack_size(256 * 1024)  # of some hundred threads
    wanted = Order(**json.loads(sys.stdin.readline()))
    print("ready", flush=True)
    if sys.stdin.readline():
        print(json.dumps(asdict(work(wanted))))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
