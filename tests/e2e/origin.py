"""Origin like Docker Hub: Debian's docker-registry with tokens, its blobs by redirect from nginx.

client -> docker-registry (401) -> token server (JWT) -> docker-registry (307) -> nginx, the CDN
"""

import base64
import json
import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from tests.e2e.cutter import Cutter
from tests.e2e.processes import Process, free_port, listens
from tests.programs import program

REGISTRY_LINE = re.compile(r'"(GET|HEAD) (/v2/\S*) HTTP/1\.[01]" (\d+) ')
CDN_LINE = re.compile(r"^(\S+) /docker/registry/v2/blobs/sha256/../([0-9a-f]{64})/data (\d+) (\d+) (\S+)$")

# Without large buffers: bytes that nginx has sent are received, but for the sockets' buffers.
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 512; }}
http {{
    log_format exact '$request_method $uri $status $body_bytes_sent $http_range';
    access_log {folder}/cdn.log exact;
    client_body_temp_path {folder}/nginx; proxy_temp_path {folder}/nginx; fastcgi_temp_path {folder}/nginx;
    uwsgi_temp_path {folder}/nginx; scgi_temp_path {folder}/nginx;
    sendfile on;
    server {{ listen {host}:{port}; root {storage}; {limit} }}
    {more}
}}
"""


class Authority:
    """Key with a self-signed certificate: issuer of tokens, and of a server's TLS."""

    def __init__(self, folder: Path, *names: str) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
            .sign(self._key, hashes.SHA256())
        )
        self._der = certificate.public_bytes(serialization.Encoding.DER)
        self.certificate = folder / f"{names[0]}.crt"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.key = folder / f"{names[0]}.key"
        self.key.write_bytes(
            self._key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def token(self, claims: dict[str, object]) -> str:
        """Return a JWT as distribution verifies it: RS256, the certificate in x5c."""
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(self._der).decode()]}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def token_server(authority: Authority, host: str = "127.0.0.1") -> Iterator[str]:
    """Run a server that gives every client a token for the requested scopes; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            body = json.dumps({"token": authority.token(claims_for(query)), "expires_in": 300}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadedServer((host, 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{host}:{server.server_port}/token"
        server.shutdown()


class ThreadedServer(ThreadingHTTPServer):
    """Server that leaves no connection and no thread behind.

    A peer whose network is gone never ends its connection, so the server does.
    """

    daemon_threads = False  # server_close waits for them

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: set[socket.socket] = set()
        self._lock = Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().close_request(request)

    def server_close(self) -> None:
        with self._lock:
            for each in self._connections:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        super().server_close()


def claims_for(query: dict[str, list[str]]) -> dict[str, object]:
    scopes = (scope.rsplit(":", 2) for each in query.get("scope", []) for scope in each.split())
    access = [
        {"type": kind.partition(":")[0], "name": name, "actions": ["pull"]}
        for kind, name, _ in ((scope[0], scope[1], scope[2]) for scope in scopes)
    ]
    now = int(time.time())
    times = {"nbf": now - 10, "iat": now, "exp": now + 300}
    return {
        "iss": "tokens",
        "sub": "",
        "aud": query["service"][0],
        "jti": secrets.token_hex(8),
        "access": access,
        **times,
    }


@dataclass
class Origin:
    """Running origin, and its logs."""

    url: str
    folder: Path
    storage: Path
    registry: Process
    cdn: Process

    def requests(self) -> list[tuple[str, str, int]]:
        """Return method, path and status of every request that the registry answered."""
        text = (self.folder / "registry.log").read_text()
        return [(m[1], m[2], int(m[3])) for m in REGISTRY_LINE.finditer(text)]

    def downloads(self) -> list[tuple[str, int, str]]:
        """Return digest, bytes sent and Range (`-` for none) of every GET of a blob at the CDN."""
        lines = (CDN_LINE.match(line) for line in (self.folder / "cdn.log").read_text().splitlines())
        return [(f"sha256:{m[2]}", int(m[4]), m[5]) for m in lines if m and m[1] == "GET"]

    def counts(self) -> dict[str, float]:
        """Return how often each blob was downloaded: bytes sent, over all ranges, divided by its size."""
        sent: Counter[str] = Counter()
        for digest, count, _ in self.downloads():
            sent[digest] += count
        return {digest: count / self.size(digest) for digest, count in sent.items()}

    def size(self, digest: str) -> int:
        """Return the size of a blob in bytes."""
        encoded = digest.removeprefix("sha256:")
        path = self.storage / "docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"
        return path.stat().st_size

    def mark(self) -> tuple[int, int]:
        """Return the numbers of requests, which are equal as long as no client asks for anything."""
        return len(self.requests()), len(self.downloads())


@contextmanager
def unprotected(storage: Path, folder: Path) -> Iterator[str]:
    """Run a registry on the same storage that takes pushes; yield its URL."""
    port = free_port()
    config = folder / "push.yml"
    config.write_text(
        json.dumps(
            {
                "version": "0.1",
                "storage": {"filesystem": {"rootdirectory": str(storage)}},
                "http": {"addr": f"127.0.0.1:{port}"},
            }
        )
    )
    command: list[str | Path] = [program("docker-registry"), "serve", config]
    with Process(command, folder / "push.log", lambda: listens(port)):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def origin(storage: Path, folder: Path, limit: str = "", cdn: Cutter | None = None) -> Iterator[Origin]:
    """Run the origin of the images in `storage`.

    `limit`: nginx directives for the CDN, such as `limit_rate 4m;`. `cdn`: a proxy in front of the CDN, to
    which redirects lead.
    """
    folder.mkdir()
    authority = Authority(folder, "tokens")
    registry_port, cdn_port = free_port(), cdn.target if cdn else free_port()
    with ExitStack() as stack:
        realm = stack.enter_context(token_server(authority))
        redirect = f"http://127.0.0.1:{cdn.port if cdn else cdn_port}"
        config = registry_config(storage, f"127.0.0.1:{registry_port}", redirect, (realm, authority))
        (folder / "registry.yml").write_text(json.dumps(config))
        nginx_config = NGINX.format(
            folder=folder, host="127.0.0.1", port=cdn_port, storage=storage, limit=limit, more=""
        )
        (folder / "nginx.conf").write_text(nginx_config)
        (folder / "cdn.log").touch()
        # `user root`: nginx's workers must be able to read the files that the registry wrote.
        serve: list[str | Path] = [program("docker-registry"), "serve", folder / "registry.yml"]
        static: list[str | Path] = [program("nginx"), "-c", folder / "nginx.conf", "-g", "user root;"]
        registry = Process(
            serve,
            folder / "registry.log",
            lambda: listens(registry_port),
        )
        nginx = Process(
            static,
            folder / "nginx.out",
            lambda: listens(cdn_port),
        )
        stack.enter_context(registry)
        stack.enter_context(nginx)
        yield Origin(f"http://127.0.0.1:{registry_port}", folder, storage, registry, nginx)


def registry_config(
    storage: Path, address: str, redirect: str, tokens: tuple[str, Authority]
) -> dict[str, object]:
    """Configuration of a registry at `address` whose blobs are at `redirect`; `tokens`: realm and issuer."""
    return {
        "version": "0.1",
        "log": {"accesslog": {"disabled": False}, "level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "middleware": {"storage": [{"name": "redirect", "options": {"baseurl": redirect}}]},
        "auth": {"token": token_config(*tokens)},
        "http": {"addr": address},
    }


def token_config(realm: str, authority: Authority) -> dict[str, object]:
    """Configuration of the tokens that a registry asks for."""
    return {
        "realm": realm,
        "service": "origin",
        "issuer": "tokens",
        "rootcertbundle": str(authority.certificate),
    }
