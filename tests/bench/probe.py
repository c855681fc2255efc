"""Another client: pulls a warm small blob and cold large ones, in processes of its own beside the abuse.

Warm requests are independent of each other, as those of many users are: each begins when it is due, on a
connection of its own, however many of the others still wait. One after the other they would wait in the probe
for those before them, and the probe's own queue would count as the server's. A process of its own sends them,
so that no hash of a cold blob delays them.
"""

import hashlib
import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench.client import ACCEPT, Trouble, fetch
from tests.bench.contestants import Running

# Seconds between two warm requests, and between two cold ones.
WARM_PAUSE, COLD_PAUSE = 0.02, 0.1

# Limit in seconds for the whole response to a warm request, and for each read of a cold one.
ANSWER_SECONDS = 10.0

# Time that this thread was ready to run, and waited for its core: the second number, in nanoseconds.
SCHEDULING = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True)
class Plan:
    """Work of the probe: one warm path ("" for none), and cold ones, each of which is requested once."""

    address: str
    warm: str
    cold: Sequence[str]
    seconds: float


@dataclass(frozen=True)
class Seen:
    """Seconds of each request that had a right response, and the number of those that had none.

    `late`: seconds for which the warm requests waited for the probe's own core, all together; the times of
    requests have them in them.
    """

    warm: Sequence[float]
    cold: Sequence[float]
    unanswered: int = 0
    late: float = 0.0

    @property
    def unanswered_percent(self) -> float:
        asked = len(self.warm) + len(self.cold) + self.unanswered
        return 100 * self.unanswered / asked if asked else 100.0

    @property
    def warm_p99(self) -> float | None:
        """Return the 99th percentile of warm requests; None if there was no response."""
        return percentile(self.warm, 99) if self.warm else None

    def cold_ratio(self, alone: "Seen") -> float | None:
        """Return the median time of a cold blob by that of `alone`; None if one of both has none."""
        if not self.cold or not alone.cold:
            return None
        return median(self.cold) / median(alone.cold)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the least value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def start(plan: Plan) -> "subprocess.Popen[str]":
    """Start the probe, and wait until it begins; the rest of its output is for `seen`."""
    command = [sys.executable, "-m", "tests.bench.probe", json.dumps(asdict(plan))]
    folder = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n", "the probe did not start"
    return process


def seen(output: str) -> Seen:
    return Seen(**json.loads(output))


def run(plan: Plan, begin: Callable[[], object] = lambda: None) -> Seen:
    """Pull until the time is over, at least once each; requests that are under way then are finished.

    `begin` is called at the beginning.
    """
    if not plan.warm:
        begin()
        times, unanswered = _cold(plan)
        return Seen([], times, unanswered)
    with _beside(replace(plan, warm="")) as cold:
        begin()
        before = _waited()
        with WarmRequests(plan.address, plan.warm) as warm:
            warm.run(plan.seconds)
        late = _waited() - before
        found = cold()
    return Seen(warm.times, found.cold, warm.unanswered + found.unanswered, late)


@contextmanager
def _beside(plan: Plan) -> Iterator[Callable[[], Seen]]:
    """Pull cold blobs in another process, which has begun; yield a function that waits for its end."""
    if not plan.cold:
        yield lambda: Seen([], [])
        return
    with start(plan) as process:
        try:
            yield lambda: seen(process.communicate()[0])
        finally:
            process.kill()


class WarmRequests:
    """Requests for one path at a fixed rate, each on a connection of its own.

    A response's time begins when its request was due. So requests that a stall of the server held up count
    in full, those that were due during it as well.
    """

    def __init__(self, address: str, path: str) -> None:
        self.times: list[float] = []
        self.unanswered = 0
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._digest = path.rpartition("/")[2]
        lines = (f"GET {path} HTTP/1.1", f"Host: {address}", f"Accept: {ACCEPT}")
        self._request = "\r\n".join([*lines, "", ""]).encode()
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[socket.socket, WarmRequest] = {}  # in the order of their times

    def __enter__(self) -> "WarmRequests":
        return self

    def __exit__(self, *_: object) -> None:
        for each in list(self._waiting):
            self._forget(each)
        self._selector.close()

    def run(self, seconds: float) -> None:
        """Send the requests that are due within `seconds`, one at least, and wait for all responses."""
        due = time.perf_counter()
        end = due + max(seconds, WARM_PAUSE)
        while due < end or self._waiting:
            now = time.perf_counter()
            if due < end and now >= due:
                self._send(due)
                due += WARM_PAUSE
                continue
            self._give_up(now)
            limit = due - now if due < end else ANSWER_SECONDS
            for key, events in self._selector.select(min(limit, WARM_PAUSE)):
                self._advance(key.data, events)

    def _send(self, due: float) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.connect_ex(self._address)  # an error shows when the request is sent
        request = self._waiting[connection] = WarmRequest(connection, due)
        self._selector.register(connection, selectors.EVENT_WRITE, request)

    def _advance(self, request: "WarmRequest", events: int) -> None:
        """Send the request on a connection that is open now, or take what has come of the response."""
        try:
            if events & selectors.EVENT_WRITE:
                request.connection.send(self._request)
                self._selector.modify(request.connection, selectors.EVENT_READ, request)
            elif piece := request.connection.recv(65536):
                request.received += piece
                if request.is_whole():
                    self._finish(request)
            else:
                self._finish(request)
        except OSError:
            self._finish(request)

    def _finish(self, request: "WarmRequest") -> None:
        """Count a response by its time if it has the right bytes."""
        if request.has(self._digest):
            self.times.append(time.perf_counter() - request.due)
        else:
            self.unanswered += 1
        self._forget(request.connection)

    def _give_up(self, now: float) -> None:
        for request in list(self._waiting.values()):
            if now - request.due < ANSWER_SECONDS:
                break
            self.unanswered += 1
            self._forget(request.connection)

    def _forget(self, connection: socket.socket) -> None:
        del self._waiting[connection]
        self._selector.unregister(connection)
        connection.close()


@dataclass
class WarmRequest:
    """A request that waits for its response; `due`: when it should begin."""

    connection: socket.socket
    due: float
    received: bytes = b""

    def is_whole(self) -> bool:
        """Return whether all has come that the head announces."""
        head, end, body = self.received.partition(b"\r\n\r\n")
        _, announced, rest = head.lower().partition(b"\r\ncontent-length:")
        return bool(end and announced) and len(body) >= int(rest.split(b"\r\n", 1)[0])

    def has(self, digest: str) -> bool:
        """Return whether the response is one of success with the right bytes."""
        head, _, body = self.received.partition(b"\r\n\r\n")
        return head[9:12] == b"200" and f"sha256:{hashlib.sha256(body).hexdigest()}" == digest


def _waited() -> float:
    """Return the seconds for which this thread has waited for its core so far."""
    return int(SCHEDULING.read_text().split()[1]) / 1e9


def _cold(plan: Plan) -> tuple[list[float], int]:
    server, end = Running("probed", plan.address), time.perf_counter() + plan.seconds
    times, unanswered = list[float](), 0
    for path in plan.cold:
        started = time.perf_counter()
        if _answered(server, path):
            times.append(time.perf_counter() - started)
        else:
            unanswered += 1
        if time.perf_counter() + COLD_PAUSE >= end:
            break
        time.sleep(COLD_PAUSE)
    return times, unanswered


def _answered(server: Running, path: str) -> bool:
    """Pull once; return whether the response came, whole and with the right bytes."""
    try:
        return fetch(server, path, verify=True, timeout=ANSWER_SECONDS).digest == path.rpartition("/")[2]
    except (Trouble, OSError, ValueError):
        return False


if __name__ == "__main__":
    print(json.dumps(asdict(run(Plan(**json.loads(sys.argv[1])), partial(print, "begun", flush=True)))))
