"""Abuse bench: what the probe counts, and that each kind of abuse reaches a server. No time is judged."""

import hashlib
import json
import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.bench import abuse, probe
from tests.bench.abusers import KINDS, NAME_CONNECTIONS, Abuse, abusing, compressed_zeros
from tests.bench.content import DESCRIPTORS, Site
from tests.bench.rows import ROWS

pytestmark = pytest.mark.slow

# Seconds that a test waits for a request, far more than it takes.
PATIENCE = 60.0

# More requests than there are clients that share the names.
MANY = 2 * NAME_CONNECTIONS

BODY = b"right"
RIGHT = f"/v2/a/blobs/sha256:{hashlib.sha256(BODY).hexdigest()}"
WRONG = f"/v2/a/blobs/sha256:{hashlib.sha256(b'wrong').hexdigest()}"


class Paths:
    """The paths that were requested."""

    def __init__(self) -> None:
        self.all = list[str]()
        self.some, self.many = Event(), Event()

    def add(self, path: str) -> None:
        self.all.append(path)
        self.some.set()
        if len(self.all) > MANY:
            self.many.set()


@contextmanager
def server() -> Iterator[tuple[str, Paths]]:
    """Run a server that has BODY at each path; yield its address, and the paths that were requested."""
    paths = Paths()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            paths.add(self.path)
            self.close_connection |= bool({"Content-Encoding", "Transfer-Encoding"} & set(self.headers))
            self.send_response(404 if "/manifests/" in self.path else 200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{http.server_address[1]}", paths
        finally:
            http.shutdown()
            thread.join()


def test_percentile_is_a_value_that_was_measured() -> None:
    """The 99th percentile of a hundred values is the second largest; of few values, the largest."""
    assert probe.percentile([float(each) for each in range(100, 0, -1)], 99) == 99
    assert probe.percentile([3.0, 1.0, 2.0], 99) == 3
    assert probe.percentile([3.0, 1.0, 2.0], 50) == 2


def test_seen_compares_with_the_client_alone() -> None:
    """The ratio is that of medians; without a response there is none."""
    alone, beside = probe.Seen([0.1], [1.0, 2.0, 9.0]), probe.Seen([0.2, 0.3], [3.0], unanswered=1)
    assert beside.cold_ratio(alone) == 1.5
    assert beside.unanswered_percent == 25
    nothing = probe.Seen([], [], unanswered=2)
    assert nothing.cold_ratio(alone) is None
    assert nothing.warm_p99 is None
    assert nothing.unanswered_percent == 100


def test_probe_counts_wrong_bytes_as_unanswered() -> None:
    """Only a whole response with the right bytes is an answer."""
    with server() as (address, paths):
        seen = probe.run(probe.Plan(address, RIGHT, [WRONG, RIGHT], seconds=0))
    assert sorted(paths.all) == sorted([RIGHT, WRONG])
    assert (len(seen.warm), len(seen.cold), seen.unanswered) == (1, 0, 1)


def test_probe_counts_refused_connections_as_unanswered() -> None:
    """A server that is not there answers nothing."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        seen = probe.run(probe.Plan(address, RIGHT, [RIGHT], seconds=0))
    assert (len(seen.warm), len(seen.cold), seen.unanswered) == (0, 0, 2)


def test_probe_asks_while_others_wait() -> None:
    """A request that waits holds up none of the later ones: several wait at the same time."""
    response = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(PATIENCE)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        probed = pool.submit(probe.run, probe.Plan(address, RIGHT, [], seconds=1.5 * probe.WARM_PAUSE))
        waiting = [listener.accept()[0] for _ in range(2)]
        for each in reversed(waiting):
            each.sendall(response)
        seen = probed.result(PATIENCE)
    for each in waiting:
        each.close()
    assert (len(seen.warm), seen.unanswered) == (2, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_abusers_reach_the_server(kind: str) -> None:
    """Each kind runs until it is ended, and reports what it has done."""
    with server() as (address, paths):
        with abusing(Abuse(kind, address, [RIGHT], 3)) as abusers:
            assert paths.some.wait(PATIENCE)
        assert abusers.result >= (0 if kind == "names" else 1)


def test_no_name_is_asked_for_twice() -> None:
    """All clients together ask for unique names, and count each answer."""
    with server() as (address, paths), abusing(Abuse("names", address, [RIGHT], 1000)) as abusers:
        assert paths.many.wait(PATIENCE)
    assert len(set(paths.all)) == len(paths.all)
    assert len(paths.all) - NAME_CONNECTIONS <= abusers.result <= len(paths.all)


def test_each_kind_has_its_rows() -> None:
    """Latency, cold time, memory and unanswered requests are reported for each kind."""
    keys = {row.key for row in ROWS}
    assert set(abuse.KINDS) == set(KINDS)
    for kind in KINDS:
        assert {f"abuse-{kind}{figure}" for figure in ("", "-cold", "-rss", "-unanswered")} <= keys


def test_compressed_zeros_are_small() -> None:
    """A body of a few kB is a thousand times as long when it is decompressed."""
    data = compressed_zeros(4)
    assert zlib.decompress(data, wbits=31) == bytes(4 * 1024 * 1024)
    assert len(data) < 8192


def test_huge_index_fits_into_a_manifest(tmp_path: Path) -> None:
    """A huge index is one that registries accept; each number has other digests."""
    site = Site(tmp_path, quick=True)
    first, second = site.index(0), site.index(1)
    assert first.digest != second.digest
    assert first.size < 4 * 1024 * 1024
    assert len(json.loads(site.file(first).read_bytes())["manifests"]) == DESCRIPTORS
