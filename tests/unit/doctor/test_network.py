"""The way to an upstream, with a real fault at each step."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time

import pytest

from mirror.config.endpoints import UpstreamSettings
from mirror.doctor.finding import Diagnosis, Severity
from mirror.doctor.network import Endpoint, examine
from mirror.upstream.http.proxy import Proxies
from tests.fakes.tls import Authority

DIRECT = Proxies({})


@contextmanager
def server(
    status: int = 200, ahead: float = 0, tls: ssl.SSLContext | None = None, connect: int = 200
) -> Iterator[int]:
    """Run a registry whose clock is `ahead` by these seconds, and which answers CONNECT; yield its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            self.send_header("Date", formatdate(time() + ahead, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_CONNECT(self) -> None:
            self.send_response_only(connect)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as running:
        if tls is not None:
            running.socket = tls.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        try:
            yield running.server_port
        finally:
            running.shutdown()
            thread.join()


def endpoint(url: str, **values: object) -> Endpoint:
    return Endpoint("up.test", UpstreamSettings(name="up.test", url=url, **values))  # type: ignore[arg-type]


def only(found: tuple[list[Diagnosis], bool]) -> Diagnosis:
    (finding,) = found[0]
    return finding


@pytest.mark.parametrize("status", [200, 401])
def test_endpoint_that_answers_is_fine(status: int) -> None:
    """A registry answers 200, or 401 with a challenge."""
    with server(status) as port:
        found = examine(endpoint(f"http://127.0.0.1:{port}"), DIRECT)
    assert (only(found).severity, found[1]) == (Severity.FINE, True)


def test_name_that_does_not_resolve() -> None:
    """The first step that fails is named, with the host to look up."""
    found = examine(endpoint("https://nowhere.invalid"), DIRECT)
    assert not found[1]
    assert "the name does not resolve" in only(found).what
    assert only(found).mend.startswith("getent hosts nowhere.invalid")


def test_closed_port_is_a_matter_of_route_or_firewall() -> None:
    """Nothing listens there."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        found = only(examine(endpoint(f"http://127.0.0.1:{port}"), DIRECT))
    assert f"127.0.0.1:{port} cannot be reached: connection refused" in found.what
    assert found.severity is Severity.ERROR


def test_status_that_no_registry_has() -> None:
    """A gateway in the place of the registry is a warning; the rest is examined."""
    with server(503) as port:
        found = examine(endpoint(f"http://127.0.0.1:{port}"), DIRECT)
    assert "answers 503 to /v2/" in only(found).what
    assert found[1]


@pytest.mark.parametrize(
    ("ahead", "severity", "words"),
    [
        (45, Severity.WARNING, "seconds behind"),
        (-45, Severity.WARNING, "seconds ahead of"),
        (3600 * 5 + 60, Severity.ERROR, "5 hours behind"),
        (-86400 * 400 - 60, Severity.ERROR, "400 days ahead of"),
    ],
)
def test_clock_that_differs(ahead: float, severity: Severity, words: str) -> None:
    """A wrong clock makes certificates and tokens fail, in both directions."""
    with server(ahead=ahead) as port:
        found = only(examine(endpoint(f"http://127.0.0.1:{port}"), DIRECT))
    assert (found.severity, found.mend) == (severity, "timedatectl set-ntp true")
    assert words in found.what


def test_certificate_that_has_expired(tmp_path: Path) -> None:
    """The end of the certificate is told, and not confused with an unknown CA."""
    authority = Authority(tmp_path, timedelta(hours=-1))
    with server(tls=authority.server_context()) as port:
        url = endpoint(f"https://127.0.0.1:{port}", ca_file=authority.ca_file)
        found = only(examine(url, DIRECT))
    assert "not trusted: certificate has expired" in found.what
    assert found.mend.startswith("renew the certificate")


def test_certificate_judged_by_a_wrong_clock(tmp_path: Path) -> None:
    """The clock is the first suspect if the server has another date."""
    authority = Authority(tmp_path, timedelta(hours=-1))
    with server(tls=authority.server_context(), ahead=-86400 * 30) as port:
        url = endpoint(f"https://127.0.0.1:{port}", ca_file=authority.ca_file)
        clock, certificate = examine(url, DIRECT)[0]
    assert "days ahead of the registry's" in clock.what
    assert "has expired" in certificate.what


def test_certificate_that_ends_soon(tmp_path: Path) -> None:
    """A week before its end there is a warning."""
    authority = Authority(tmp_path, timedelta(days=2, hours=1))
    with server(tls=authority.server_context()) as port:
        found = examine(endpoint(f"https://127.0.0.1:{port}", ca_file=authority.ca_file), DIRECT)
    assert ("ends in 2 days" in only(found).what, only(found).severity) == (True, Severity.WARNING)
    assert found[1]


def test_certificate_of_an_unknown_ca_and_another_name(tmp_path: Path) -> None:
    """Each has its own remedy: `ca_file`, or the right name."""
    authority = Authority(tmp_path)
    with server(tls=authority.server_context()) as port:
        unknown = only(examine(endpoint(f"https://127.0.0.1:{port}"), DIRECT))
        other = only(examine(endpoint(f"https://localhost:{port}", ca_file=authority.ca_file), DIRECT))
    assert unknown.mend.startswith('ca_file = "')
    assert "Hostname mismatch" in other.what or "not valid for" in other.what
    assert "name that the certificate has" in other.mend


def test_scheme_that_is_the_wrong_one(tmp_path: Path) -> None:
    """TLS and plain HTTP are told apart in both directions."""
    with server() as port:
        plain = only(examine(endpoint(f"https://127.0.0.1:{port}"), DIRECT))
    assert f'url = "http://127.0.0.1:{port}"' in plain.mend
    with server(tls=Authority(tmp_path).server_context()) as port:
        encrypted = only(examine(endpoint(f"http://127.0.0.1:{port}"), DIRECT))
    assert f'url = "https://127.0.0.1:{port}"' in encrypted.mend


def test_proxy_is_the_one_that_is_examined() -> None:
    """The proxy answers for the endpoint, whose name is not looked up here."""
    with server() as port:
        proxies = Proxies({"http": f"127.0.0.1:{port}"})
        found = only(examine(endpoint("http://nowhere.invalid"), proxies))
    assert found.what == f"nowhere.invalid answers through the proxy 127.0.0.1:{port}"


def test_proxy_that_fails() -> None:
    """A proxy without a name, one that is not there, and one that refuses are told as such."""
    url = endpoint("https://nowhere.invalid")
    nameless = only(examine(url, Proxies({"https": "http://proxy.invalid:1"})))
    assert "the name of the proxy proxy.invalid does not resolve" in nameless.what
    closed = only(examine(url, Proxies({"https": "http://127.0.0.1:1"})))
    assert "the proxy 127.0.0.1:1 cannot be reached" in closed.what
    with server(connect=407) as port:
        refusing = only(examine(url, Proxies({"https": f"http://u:secret@127.0.0.1:{port}"})))
    assert "refuses: 407" in refusing.what
    assert "secret" not in repr(refusing)
