"""Contestants: each starts cold on the core of the server, and serves the same paths."""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.content import Site
from tests.bench.machine import CORES, SERVER_CORE, on_core
from tests.bench.origin import TOKEN, Origin, nginx, server_tls
from tests.e2e.mirror import PROGRAM as MIRROR_PROGRAM
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Authority
from tests.e2e.processes import Process, free_port, listens
from tests.pinned import pinned
from tests.programs import program

MIRROR, DISTRIBUTION, PROXY = "mirror", "distribution", "nginx proxy"

# distribution as its project releases it, which .ci/clients makes. DISTRIBUTION is Debian's docker-registry.
DISTRIBUTION_3 = "distribution 3"
STATIC, DIRECT = "nginx static", "direct"

# The mirror itself, with only the good source, with one worker, with `durability = "fast"`.
ALONE, ONE_WORKER, FAST = "good source alone", "one worker", "fast"

# The mirror without access rules.
WITHOUT_RULES = "without rules"

# docker-registry as a registry of its own, to which clients push.
REGISTRY = "docker-registry"

# Programs that copy images, or files, beside the commands of the mirror.
CP, SKOPEO, CTR = "cp", "skopeo copy", "ctr"

# The mirror before it is abused.
BEFORE = "before"

# The mirror of another checkout, with a .venv of its own: the build before a change, for instance.
BASE = "base"

# The usual way to cache blobs with nginx: the second location follows the redirect and stores the blob under
# its digest, where the first location finds it. The lock lasts as long as the download.
CACHING = """
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=registry:64m use_temp_path=off{quota};
    map $upstream_http_location $target {{ ~^https?://[^/]+(?<path>/.*)$ $path; }}
    upstream registry {{ server {registry}; keepalive 64; }}
    upstream cdn {{ server {cdn}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        access_log {folder}/access.log;
        proxy_http_version 1.1;
        proxy_ssl_name localhost;
        proxy_set_header Connection "";
        proxy_set_header Authorization "Bearer {token}";
        proxy_cache registry;
        proxy_cache_lock on;
        proxy_cache_lock_timeout 1h;
        proxy_cache_lock_age 1h;
        proxy_cache_valid 200 1d;
        location = /v2/ {{ return 200 '{{}}'; }}
        location ~ ^/v2/.+/manifests/(?<reference>[^/]+)$ {{
            proxy_cache_key $uri;
            proxy_pass {scheme}://registry;
        }}
        location ~ ^/v2/.+/blobs/(?<digest>sha256:[0-9a-f]+)$ {{
            proxy_cache_key $digest;
            proxy_intercept_errors on;
            error_page 307 = @follow;
            proxy_pass {scheme}://registry;
        }}
        location @follow {{
            set $followed $target;
            proxy_set_header Authorization "";
            proxy_set_header Connection "";
            proxy_cache_key $digest;
            proxy_pass {scheme}://cdn$followed;
        }}
    }}
"""

PLAIN = """
    server {{
        listen 127.0.0.1:{port} backlog=1024{tls};
        root {site};
        access_log off;
        location = /v2/ {{ return 200 '{{}}'; }}
    }}
"""


@dataclass(frozen=True)
class Running:
    """Contestant that is ready. `address` is HOST:PORT; its clients have to send `headers`."""

    name: str
    address: str
    process: Process | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


@dataclass(frozen=True)
class Setup:
    """Parameters of a contestant's start: an empty `folder`, and more `config` for the mirror."""

    origin: Origin
    site: Site
    folder: Path
    config: str = ""
    authority: Authority | None = None  # serve TLS with its certificate
    workers: int = 0  # of the mirror, on all cores; 0 for one on the server's core
    base: Path | None = None  # the checkout of BASE
    quota: int = 0  # of the mirror's cache and nginx's, in MiB; distribution has none
    connections: int = 4096  # of nginx's clients and upstreams; the others take what the limit allows


@contextmanager
def running(name: str, setup: Setup) -> Iterator[Running]:
    """Run a contestant, cold at first, until the block ends."""
    if name == DIRECT:
        tls = _trusting() if setup.origin.authority else None
        yield Running(name, setup.origin.registry, headers={"Authorization": f"Bearer {TOKEN}"}, tls=tls)
        return
    process, address = STARTS[name](setup)
    with on_core(*(CORES if setup.workers else [SERVER_CORE])):
        process.start()
    try:
        yield Running(name, address, process, tls=_trusting() if setup.authority else None)
    finally:
        process.stop()


class _Mirror(Mirror):
    """Mirror that is ready when its log says so, with all its workers: its probes may be behind TLS."""

    def _is_ready(self) -> bool:
        return b" serves on " in self.log.read_bytes()


def _base(setup: Setup) -> tuple[Process, str]:
    """Start the mirror of another checkout, in the same way."""
    assert setup.base is not None
    return _mirror(setup, [setup.base / ".venv" / "bin" / "registry-mirror"])


def _mirror(setup: Setup, program: Sequence[str | Path] = MIRROR_PROGRAM) -> tuple[Process, str]:
    """Return the mirror as users run it: its log goes to a file, with access lines in JSON by default."""
    config = f"{setup.config}\n[server]\nworkers = {setup.workers or 1}\n"
    if setup.authority:
        paths = {"tls_certificate": setup.authority.certificate, "tls_key": setup.authority.key}
        config += "".join(f"{name} = {str(path)!r}\n" for name, path in paths.items())
    if setup.quota:
        config += f"[cache]\nmax_size = '{setup.quota}MiB'\n"
    file = setup.folder / "mirror.toml"
    file.write_text(config)
    mirror = _Mirror(
        setup.folder,
        setup.origin.url,
        "--config",
        str(file),
        program=program,
        env=setup.origin.environment,
    )
    return mirror, mirror.address


def _proxy(setup: Setup) -> tuple[Process, str]:
    """Return nginx with a cache and, like the mirror, an access log."""
    port, origin = free_port(), setup.origin
    values = {"registry": _numeric(origin.registry), "cdn": _numeric(origin.cdn)}
    values |= {"token": TOKEN, "scheme": origin.scheme}
    values["quota"] = f" max_size={setup.quota}m" if setup.quota else ""
    servers = CACHING.format(folder=setup.folder, port=port, **values)
    return nginx(setup.folder, servers, port, setup.connections), f"127.0.0.1:{port}"


def _static(setup: Setup) -> tuple[Process, str]:
    """Return nginx that only sends files."""
    port = free_port()
    servers = PLAIN.format(site=setup.site.root, port=port, tls=server_tls(setup.authority))
    return nginx(setup.folder, servers, port), f"127.0.0.1:{port}"


def _distribution(setup: Setup) -> tuple[Process, str]:
    """Return docker-registry as a pull-through cache, otherwise as Debian configures it."""
    port = free_port()
    config = _registry_config(setup, port) | {"proxy": {"remoteurl": setup.origin.url}}
    return _docker_registry(setup, port, config)


def _distribution_3(setup: Setup) -> tuple[Process, str]:
    """Return distribution 3 as a pull-through cache, otherwise as Debian configures docker-registry."""
    port = free_port()
    config = _registry_config(setup, port) | {"proxy": {"remoteurl": setup.origin.url}}
    registry = pinned()["distribution"].folder / "registry"
    return _docker_registry(setup, port, config, registry)


def _registry(setup: Setup) -> tuple[Process, str]:
    """Return docker-registry as Debian configures it."""
    port = free_port()
    return _docker_registry(setup, port, _registry_config(setup, port))


def _registry_config(setup: Setup, port: int) -> dict[str, object]:
    return {
        "version": "0.1",
        "storage": {
            "cache": {"blobdescriptor": "inmemory"},
            "filesystem": {"rootdirectory": str(setup.folder / "storage")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}", "headers": {"X-Content-Type-Options": ["nosniff"]}},
    }


def _docker_registry(
    setup: Setup, port: int, config: dict[str, object], registry: str | Path = ""
) -> tuple[Process, str]:
    path = setup.folder / "config.yml"
    path.write_text(json.dumps(config))
    command: list[str | Path] = [registry or program("docker-registry"), "serve", path]
    # Version 3 exports traces unless told otherwise.
    log, env = setup.folder / "registry.out", {**setup.origin.environment, "OTEL_TRACES_EXPORTER": "none"}
    return Process(command, log, lambda: listens(port), env), f"127.0.0.1:{port}"


def _numeric(address: str) -> str:
    """Return HOST:PORT of loopback with a number, so that nginx does not try IPv6 as well."""
    return address.replace("localhost", "127.0.0.1")


def _trusting() -> ssl.SSLContext:
    """Return a TLS context that checks no certificate: the bench measures bytes."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


STARTS: dict[str, Callable[[Setup], tuple[Process, str]]] = {
    MIRROR: _mirror,
    ALONE: _mirror,
    ONE_WORKER: _mirror,
    FAST: _mirror,
    WITHOUT_RULES: _mirror,
    BASE: _base,
    DISTRIBUTION: _distribution,
    DISTRIBUTION_3: _distribution_3,
    REGISTRY: _registry,
    PROXY: _proxy,
    STATIC: _static,
}
