"""Who is compared: each is started cold on the core of the server, and serves the same paths."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.content import Site
from tests.bench.machine import SERVER_CORE, on_core
from tests.bench.origin import TOKEN, Origin, nginx
from tests.e2e.mirror import Mirror
from tests.e2e.processes import Process, free_port, listens
from tests.programs import program

MIRROR, DISTRIBUTION, PROXY = "mirror", "distribution", "nginx proxy"
STATIC, DIRECT = "nginx static", "direct"

# The way blobs are cached by nginx in front of registries: the first location finds by digest what the second
# one, which follows the redirect, has stored under the same key. The lock lasts as long as the download.
CACHING = """
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=registry:64m use_temp_path=off;
    map $upstream_http_location $target {{ ~^http://[^/]+(?<path>/.*)$ $path; }}
    upstream registry {{ server {registry}; keepalive 64; }}
    upstream cdn {{ server {cdn}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        access_log {folder}/access.log;
        proxy_http_version 1.1;
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
            proxy_pass http://registry;
        }}
        location ~ ^/v2/.+/blobs/(?<digest>sha256:[0-9a-f]+)$ {{
            proxy_cache_key $digest;
            proxy_intercept_errors on;
            error_page 307 = @follow;
            proxy_pass http://registry;
        }}
        location @follow {{
            set $followed $target;
            proxy_set_header Authorization "";
            proxy_set_header Connection "";
            proxy_cache_key $digest;
            proxy_pass http://cdn$followed;
        }}
    }}
"""

PLAIN = """
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        root {site};
        access_log off;
        location = /v2/ {{ return 200 '{{}}'; }}
    }}
"""


@dataclass(frozen=True)
class Running:
    """A contestant that answers. `address` is HOST:PORT; `headers` are what its clients have to send."""

    name: str
    address: str
    process: Process | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


@contextmanager
def running(name: str, origin: Origin, site: Site, folder: Path) -> Iterator[Running]:
    """Cold, in a folder of its own, until the block ends."""
    if name == DIRECT:
        yield Running(name, origin.registry, headers={"Authorization": f"Bearer {TOKEN}"})
        return
    folder.mkdir(parents=True)
    process, address = _made(name, origin, site, folder)
    with on_core(SERVER_CORE):
        process.start()
    try:
        yield Running(name, address, process)
    finally:
        process.stop()


def _made(name: str, origin: Origin, site: Site, folder: Path) -> tuple[Process, str]:
    if name == MIRROR:
        mirror = Mirror(folder, origin.url)
        return mirror, mirror.address
    port = free_port()
    address = f"127.0.0.1:{port}"
    if name == DISTRIBUTION:
        return _distribution(origin, folder, port), address
    if name == PROXY:
        values = {"registry": origin.registry, "cdn": origin.cdn, "token": TOKEN}
        return nginx(folder, CACHING.format(folder=folder, port=port, **values), port), address
    return nginx(folder, PLAIN.format(site=site.root, port=port), port), address


def _distribution(origin: Origin, folder: Path, port: int) -> Process:
    """docker-registry as pull-through, otherwise as Debian configures it."""
    config = {
        "version": "0.1",
        "storage": {
            "cache": {"blobdescriptor": "inmemory"},
            "filesystem": {"rootdirectory": str(folder / "storage")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}", "headers": {"X-Content-Type-Options": ["nosniff"]}},
        "proxy": {"remoteurl": origin.url},
    }
    path = folder / "config.yml"
    path.write_text(json.dumps(config))
    command: list[str | Path] = [program("docker-registry"), "serve", path]
    return Process(command, folder / "registry.out", lambda: listens(port))
