"""Many readers on slow lines, and their effect on another client."""

import selectors
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from mmap import ACCESS_READ, mmap
from threading import Event

from tests.bench.bench import Bench, check
from tests.bench.client import Connection, Trouble, fetch
from tests.bench.contestants import DISTRIBUTION, MIRROR, PROXY, STATIC, Running
from tests.bench.machine import rss_bytes
from tests.bench.probe import Plan, percentile, seen, start

# Bytes per second of one reader, read ten times a second; and the receive buffer of a client on a slow line.
RATE = 100_000
TURNS = 10
RECEIVE_BUFFER = 65536

PROBE_SECONDS = 0.05


def slow_readers(bench: Bench) -> None:
    """Measure 500 readers of one warm blob for ten seconds; every byte is compared with the file."""
    blob = bench.site.warm.layers[0]
    readers, seconds = (100, 3) if bench.options.quick else (500, 10)
    with bench.origin() as origin:
        for name in bench.turns(MIRROR, DISTRIBUTION, PROXY, STATIC):
            with bench.attempt("slow-readers", name), bench.cold(name, origin) as server:
                check(server, blob.path)
                crowd = Crowd(server, bench, readers)
                with ThreadPoolExecutor(1) as pool, closing(crowd):
                    over = Event()
                    probes = pool.submit(_probe, server, over)
                    try:
                        crowd.read(seconds)
                    finally:
                        over.set()
                    bench.add("slow-readers-probe", name, probes.result() * 1000)
                bench.add("slow-readers-right", name, 100 * crowd.right / readers)
                bench.add("slow-readers-rss", name, crowd.rss / 1e6)


def arrivals(bench: Bench) -> None:
    """Measure another client while 500 readers arrive at once for one warm blob, and read it."""
    image = bench.site.warm
    readers, seconds = (100, 2) if bench.options.quick else (500, 5)
    for name in bench.turns(MIRROR, DISTRIBUTION, PROXY, STATIC):
        with bench.attempt("arrivals", name):
            server = bench.warm(name)
            watching = start(Plan(server.address, image.config.path, (), seconds + 1))
            time.sleep(1)  # alone at first: its requests are known then, as those of a client that is there
            taken = _crowd_in(server, image.layers[0].path, readers, seconds)
            found = seen(watching.communicate()[0])
            if found.unanswered or not found.warm:
                raise Trouble(f"{found.unanswered} requests of the other client were not answered")
            bench.add("arrivals", name, max(found.warm) * 1000)
            bench.add("arrivals-p99", name, percentile(found.warm, 99) * 1000)
            bench.add("arrivals-rate", name, taken / seconds / 1e9)


def _crowd_in(server: Running, path: str, readers: int, seconds: float) -> int:
    """Connect all, ask at once, and read for so long; return the bytes."""
    connections = [Connection(server.address) for _ in range(readers)]
    selector, taken, end = selectors.DefaultSelector(), 0, time.perf_counter() + seconds
    request = f"GET {path} HTTP/1.1\r\nHost: {server.address}\r\n\r\n".encode()
    try:
        for connection in connections:
            connection.socket.sendall(request)
            connection.socket.setblocking(False)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        while selector.get_map() and time.perf_counter() < end:
            for key, _ in selector.select(0.1):
                try:
                    taken += key.data.skip()
                except Trouble:
                    selector.unregister(key.fileobj)
    finally:
        selector.close()
        for connection in connections:
            connection.close()
    return taken


class Crowd:
    """Slow readers, a tenth of which read at a time, as much as their rate allows."""

    def __init__(self, server: Running, bench: Bench, readers: int) -> None:
        blob = bench.site.warm.layers[0]
        self._server = server
        self._stack = ExitStack()
        self.rss = 0
        file = self._stack.enter_context(bench.site.file(blob).open("rb"))
        body = self._stack.enter_context(mmap(file.fileno(), 0, access=ACCESS_READ))
        self._readers: list[Reader] = []
        self._stack.callback(self._leave)
        for _ in range(readers):
            self._readers.append(Reader(server, blob.path, body))

    @property
    def right(self) -> int:
        """Number of readers that have the bytes they should have by now."""
        return sum(reader.right for reader in self._readers)

    def read(self, seconds: float) -> None:
        started = time.perf_counter()
        for turn in range(int(seconds * TURNS * TURNS)):
            time.sleep(max(0.0, started + turn / (TURNS * TURNS) - time.perf_counter()))
            for reader in self._readers[turn % TURNS :: TURNS]:
                reader.take(RATE // TURNS)
            if turn % (TURNS * TURNS) == 0:
                self.rss = max(self.rss, rss_bytes(self._server.pid))

    def close(self) -> None:
        self._stack.close()

    def _leave(self) -> None:
        for reader in self._readers:
            reader.close()


class Reader:
    """Slow client that compares. It falls behind when bytes that it may read are not there."""

    def __init__(self, server: Running, path: str, body: mmap) -> None:
        self._connection = Connection(server.address, receive=RECEIVE_BUFFER)
        self._body = body
        status, _, rest = self._connection.ask(path, server.headers)
        self._connection.socket.setblocking(False)
        self._done = len(rest)
        self._allowed = len(rest)
        self._good = status == 200 and rest == body[: len(rest)]

    @property
    def right(self) -> bool:
        """Return whether all bytes were right, at most a second late."""
        return self._good and self._allowed - self._done <= RATE

    def take(self, count: int) -> None:
        self._allowed += count
        try:
            data = self._connection.socket.recv(self._allowed - self._done)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._good = self._good and bool(data) and data == self._body[self._done : self._done + len(data)]
        self._done += len(data)

    def close(self) -> None:
        self._connection.close()


def _probe(server: Running, over: Event) -> float:
    """Return the seconds of the slowest response to /v2/, asked every 50 ms on a connection of its own."""
    slowest = 0.0
    while not over.wait(PROBE_SECONDS):
        try:
            slowest = max(slowest, fetch(server, "/v2/").whole)
        except Trouble as trouble:
            raise Trouble(f"/v2/: {trouble}") from trouble
    return slowest
