"""The question to the running mirror, with real servers."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mirror.setup.plan import SetupError, UpstreamEntry
from mirror.setup.running_mirror import find_mirror, split_address
from tests.fakes.tls import Authority
from tests.running import configured, serving

GOOD = {"registry-mirror": "1", "upstreams": [{"name": "docker.io", "aliases": ["index.docker.io"]}]}


@contextmanager
def answering(body: object, status: int = 200, authority: Authority | None = None) -> Iterator[str]:
    """Run a server that answers every GET alike; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if authority is not None:
            server.socket = authority.server_context().wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def test_mirror_describes_itself(tmp_path: Path) -> None:
    """A real mirror says its upstreams, and nothing else about itself."""
    async with serving(
        configured(tmp_path, {"docker.io": "http://127.0.0.1:1", "q.test": "http://x.test"})
    ) as m:
        found = await asyncio.to_thread(find_mirror, m.address)
        assert await asyncio.to_thread(find_mirror, f"http://{m.address}/") == found
    hub = UpstreamEntry("docker.io", ("registry-1.docker.io", "index.docker.io"))
    assert (found.address, found.tls, found.upstreams) == (m.address, False, (hub, UpstreamEntry("q.test")))


def test_mirror_over_tls_needs_its_ca(tmp_path: Path) -> None:
    """An unknown CA is an error that names --ca; with it, the CA is what clients will need."""
    authority = Authority(tmp_path)
    with answering(GOOD, authority=authority) as address:
        with pytest.raises(SetupError, match=r"not trusted here.*--ca FILE"):
            find_mirror(f"https://{address}")
        ca = authority.ca_file.read_text()
        found = find_mirror(f"https://{address}", ca)
        assert (found.tls, found.ca) == (True, ca)
        with pytest.raises(SetupError, match="no certificate"):
            find_mirror(f"https://{address}", "nothing")
        assert find_mirror(address, ca).tls


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 404),
        (GOOD, 302),
        (b"<html>", 200),
        ({"upstreams": []}, 200),
        ([], 200),
        ({"registry-mirror": "1", "upstreams": [{"name": 'x"] evil = ["'}]}, 200),
        ({"registry-mirror": "1", "upstreams": [{"name": "a\nb"}]}, 200),
        ({"registry-mirror": "1", "upstreams": [{"name": "a", "aliases": [1]}]}, 200),
        ({"registry-mirror": "1", "upstreams": 3}, 200),
        (b" " * (1024 * 1024) + b"{}", 200),
    ],
)
def test_other_servers_are_refused_politely(body: object, status: int) -> None:
    """No redirect is followed, and no name that is none gets into a file."""
    with answering(body, status) as address, pytest.raises(SetupError, match="no registry-mirror"):
        find_mirror(address)


def test_mirror_without_upstreams_is_refused() -> None:
    """There is nothing to set up for it."""
    with answering({**GOOD, "upstreams": []}) as address, pytest.raises(SetupError, match="no upstreams"):
        find_mirror(address)


def test_closed_port_says_how_to_go_on() -> None:
    """A mirror that does not run is to be started, or named."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(SetupError, match=r"registry-mirror serve.*--mirror URL"):
            find_mirror(address)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x:1",
        "http://",
        "http://a b:1",
        "http://m:5000/x",
        "http://u@m:1",
        "http://m:99999",
        "http://m;x:1",
    ],
)
def test_url_that_is_none_is_refused(url: str) -> None:
    """A path, a user or another scheme is not the mirror's URL."""
    with pytest.raises(SetupError, match="HOST:PORT"):
        split_address(url)


def test_url_without_a_port_has_the_scheme_s() -> None:
    """Configurations of clients need the port."""
    assert split_address("http://M.lan") == ("http", "m.lan", 80)
    assert split_address("https://[2001:db8:0::1]") == ("https", "[2001:db8::1]", 443)
    assert split_address("https://[2001:db8::1]:5000") == ("https", "[2001:db8::1]", 5000)
