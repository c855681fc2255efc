"""Origin of the bench: token authentication, blobs by 307 from a CDN port with ranges; throttled or not.

client -> registry (401) -> /token -> registry (307) -> CDN
"""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.bench.content import Blob, Site
from tests.bench.machine import LOAD_CORE, on_core
from tests.bench.throttle import Line
from tests.e2e.origin import Authority
from tests.e2e.processes import Process, free_port, listens
from tests.programs import program

# The token of all clients: making tokens is not measured.
TOKEN = "bench"

LINE = re.compile(r"^GET (\S+) (\d+) (\d+) (\S+)$", re.MULTILINE)

# nginx with one worker that writes below `folder` only; `servers` is the rest.
NGINX = """
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections {connections}; }}
http {{
    client_body_temp_path {folder}/nginx; proxy_temp_path {folder}/nginx; fastcgi_temp_path {folder}/nginx;
    uwsgi_temp_path {folder}/nginx; scgi_temp_path {folder}/nginx;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    default_type application/octet-stream;
    log_format exact '$request_method $uri $status $body_bytes_sent $http_range';
    {servers}
}}
"""

SERVERS = """
    map $uri $content_digest {{
        ~/(?<digest>sha256:[0-9a-f]+)$ $digest;
        {tags}
    }}
    server {{
        listen {address}:{registry}{tls};
        root {site};
        access_log {folder}/registry.log exact;
        location = /token {{
            default_type application/json;
            return 200 '{{"token":"{token}","expires_in":3600}}';
        }}
        location = /v2/ {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            return 200 '{{}}';
        }}
        location ~ ^/v2/(?<repository>.+/index)/manifests/ {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            default_type {index};
            add_header Docker-Content-Digest $content_digest;
        }}
        location ~ ^/v2/(?<repository>.+)/manifests/ {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            default_type {manifest};
            add_header Docker-Content-Digest $content_digest;
        }}
        location ~ ^/v2/(?<repository>.+)/blobs/ {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            return 307 {scheme}://{host}:{cdn}$uri;
        }}
        error_page 401 @challenge;
        location @challenge {{
            set $where 'realm="{scheme}://{host}:{registry}/token",service="origin"';
            add_header WWW-Authenticate 'Bearer $where,scope="repository:$repository:pull"' always;
            add_header Docker-Distribution-Api-Version registry/2.0 always;
            return 401;
        }}
    }}
    server {{ listen {address}:{cdn}{tls}; root {site}; access_log {folder}/cdn.log exact; }}
"""


@dataclass(frozen=True)
class Origin:
    """Running origin; both addresses are HOST:PORT. `authority`: it speaks TLS with its certificate."""

    registry: str
    cdn: str
    log: Path
    authority: Authority | None = None

    @property
    def scheme(self) -> str:
        return "https" if self.authority else "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.registry}"

    @property
    def environment(self) -> dict[str, str]:
        """The variable by which OpenSSL and Go trust the origin's certificate."""
        return {"SSL_CERT_FILE": str(self.authority.certificate)} if self.authority else {}

    def sent(self, blob: Blob) -> int:
        """Return the bytes of the blob that the CDN sent since `forget`, once its log no longer grows."""
        before, size = -1, self.log.stat().st_size
        while before != size:
            time.sleep(0.3)
            before, size = size, self.log.stat().st_size
        return sum(int(m[3]) for m in LINE.finditer(self.log.read_text()) if m[1] == blob.path)

    def forget(self) -> None:
        """Forget the bytes that were sent so far."""
        with self.log.open("r+b") as log:
            log.truncate()


@contextmanager
def fast_origin(
    site: Site, folder: Path, *, secure: bool = False, address: str = "127.0.0.1"
) -> Iterator[Origin]:
    """Run nginx at full speed on the core of the load: the origin is never the limit. `secure`: over TLS."""
    folder.mkdir()
    registry, cdn = free_port(), free_port()
    authority = Authority(folder, "localhost") if secure else None
    host = "localhost" if secure else address
    servers = SERVERS.format(
        folder=folder,
        address=address,
        site=site.root,
        registry=registry,
        cdn=cdn,
        host=host,
        scheme="https" if secure else "http",
        tls=server_tls(authority),
        token=TOKEN,
        manifest=OCI_MANIFEST,
        index=OCI_INDEX,
        tags="\n        ".join(f"{path} {digest};" for path, digest in site.tags.items()),
    )
    log = folder / "cdn.log"
    log.touch()
    with on_core(LOAD_CORE), nginx(folder, servers, cdn, address=address):
        yield Origin(f"{host}:{registry}", f"{host}:{cdn}", log, authority)


def server_tls(authority: Authority | None) -> str:
    """Return the end of nginx's `listen`, and the directives after it, for TLS; nothing without."""
    if authority is None:
        return ""
    return f" ssl; ssl_certificate {authority.certificate}; ssl_certificate_key {authority.key}"


@contextmanager
def slow_origin(site: Site, folder: Path, line: Line) -> Iterator[Origin]:
    """Run an origin that throttles each connection, on the core of the load."""
    folder.mkdir()
    registry, cdn, log = free_port(), free_port(), folder / "cdn.log"
    command: list[str | Path] = [sys.executable, "-m", "tests.bench.throttle", "--site", site.root]
    command += ["--registry", str(registry), "--cdn", str(cdn), "--log", log]
    command += ["--rate", str(line.rate), "--rtt", str(line.rtt), "--stall-after", str(line.stall_after)]
    command += ["--fault-every", str(line.fault_every)]
    with on_core(LOAD_CORE), Process(command, folder / "throttle.out", lambda: listens(cdn)):
        yield Origin(f"127.0.0.1:{registry}", f"127.0.0.1:{cdn}", log)


def nginx(
    folder: Path, servers: str, port: int, connections: int = 4096, *, address: str = "127.0.0.1"
) -> Process:
    """Return an nginx that is ready when it listens on `port`, for so many connections."""
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(folder=folder, servers=servers, connections=connections, files=2 * connections)
    )
    return Process([program("nginx"), "-c", config], folder / "nginx.out", lambda: listens(port, address))
