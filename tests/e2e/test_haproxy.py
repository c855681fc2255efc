"""HAProxy in front of the mirror, with the PROXY protocol in both versions, plain and TLS."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Library
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin
from tests.e2e.processes import Process, attempt, free_port, listens, wait_until
from tests.e2e.test_setup_tls import Encrypted
from tests.fakes.tls import Authority
from tests.programs import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", "haproxy"),
    pytest.mark.timeout(120),
]

# Where HAProxy connects from, and its clients: the rules allow the first.
SOURCE, OFFICE, STRANGER = "127.0.0.3", "127.0.0.4", "127.0.0.5"

ACCESS = f"""
[access]
default = "deny"

[[rule]]
name = "office"
effect = "allow"
networks = ["{OFFICE}"]
"""

HAPROXY = """
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s

listen mirror
    bind 127.0.0.1:{port}
    server mirror {mirror} source {source} {protocol} check check-{protocol} inter 100ms
"""


@contextmanager
def haproxy(folder: Path, mirror: Mirror, protocol: str) -> Iterator[str]:
    """Run HAProxy with `send-proxy` or `send-proxy-v2` and health checks; yield its address."""
    port = free_port()
    file = folder / "haproxy.cfg"
    check = "send-proxy"
    text = HAPROXY.format(port=port, mirror=mirror.address, source=SOURCE, protocol=protocol)
    file.write_text(text.replace(f"check-{protocol}", f"check-{check}"))
    with Process([program("haproxy"), "-db", "-f", file], folder / "haproxy.log", lambda: listens(port)):
        yield f"127.0.0.1:{port}"


def fetch(url: str, client: str, to: Path, *options: str | Path) -> str:
    """Fetch by curl from an address of this machine; return the status."""
    command = ["curl", "-sS", "--interface", client, "-o", to, "-w", "%{http_code}", *options, url]
    return attempt(command).stdout


@pytest.mark.parametrize("protocol", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_mirror_knows_the_clients_behind_haproxy(
    library: Library, hub: Origin, tmp_path: Path, protocol: str, scheme: str
) -> None:
    """Rules and log go by the client; a large layer is whole; the checks of HAProxy are no trouble."""
    config = tmp_path / "mirror"
    config.mkdir()
    options: list[str | Path] = []
    server = f'[server]\nproxy_protocol = ["{SOURCE}"]\n'
    mirror: Mirror
    if scheme == "https":
        authority = Authority(tmp_path)
        options = ["--cacert", authority.ca_file]
        mirror = Encrypted(config, hub.url, authority, text=f'proxy_protocol = ["{SOURCE}"]\n{ACCESS}')
    else:
        (config / "mirror.toml").write_text(server + ACCESS)
        mirror = Mirror(config, hub.url, "--config", config / "mirror.toml")
    path = f"/v2/library/large/blobs/{library.large.blobs[-1]}"
    with mirror, haproxy(tmp_path, mirror, protocol) as address:
        url = f"{scheme}://{address}"
        for _ in range(2):  # new, and cached
            assert fetch(url + path, OFFICE, tmp_path / "blob", *options) == "200"
            assert (tmp_path / "blob").stat().st_size > 40 * 1024 * 1024
        assert fetch(url + path, STRANGER, tmp_path / "other", *options) == "404"
        wait_until(lambda: len(mirror.lines("large")) == 3, "access lines")
        found = [(line["client"], line["outcome"]) for line in mirror.lines("large")]
        assert [each[0] for each in found] == [OFFICE, OFFICE, STRANGER]
        assert found[2][1] == "denied"
        assert "PROXY header" not in mirror.log.read_text()
