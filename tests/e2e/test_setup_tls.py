"""Clients that `registry-mirror setup` has set up for a mirror with a private CA, or on a network."""

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.clients import complaint
from tests.e2e.conftest import Library
from tests.e2e.mirror import Mirror
from tests.e2e.netns import Namespace, namespace
from tests.e2e.origin import Origin
from tests.e2e.processes import free_port, run
from tests.e2e.test_setup import CONTAINERD, NATIVE, System, arrived, cri, dockerd, tool
from tests.fakes.tls import Authority
from tests.programs import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", root=True),
    pytest.mark.timeout(300),
]


class Encrypted(Mirror):
    """Mirror with a certificate of a CA that this machine does not know."""

    def __init__(
        self, folder: Path, upstream: str, authority: Authority, *flags: str, text: str = ""
    ) -> None:
        """`text`: more lines of the section [server], and sections behind it."""
        folder.mkdir(exist_ok=True)
        (folder / "mirror.toml").write_text(
            f'[server]\ntls_certificate = "{authority.server_file}"\ntls_key = "{authority.server_file}"\n'
            + text
        )
        self._context = authority.client_context()
        super().__init__(folder, upstream, "--config", folder / "mirror.toml", *flags)
        self.url = f"https://{self.address}"

    def _is_ready(self) -> bool:
        with suppress(OSError):
            url = f"https://{self.address}/readyz"
            ready = urllib.request.urlopen(url, timeout=1, context=self._context)
            return bool(ready.status == 200)
        return False


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def encrypted(hub: Origin, tmp_path: Path, authority: Authority) -> Iterator[Encrypted]:
    with Encrypted(tmp_path / "encrypted", hub.url, authority) as running:
        yield running


def test_kubernetes_knows_the_ca_of_the_mirror(
    library: Library, encrypted: Encrypted, short: Path, authority: Authority
) -> None:
    """containerd's CRI verifies the mirror by the CA that hosts.toml names."""
    (short / "root").mkdir()
    system = System(short / "root", encrypted)
    config = system.folder / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("version = 3\n" + CONTAINERD.format(folder=short) + NATIVE)
    system.setup("containerd", "2.4.2", "--ca", authority.ca_file)
    with cri(system, tool("containerd").parent, short) as crictl:
        assert complaint([*crictl, "pull", "docker.io/library/small:1"]) == ""
    assert arrived(encrypted)


@pytest.mark.needs("skopeo")
def test_skopeo_knows_the_ca_of_the_mirror(
    library: Library, encrypted: Encrypted, short: Path, authority: Authority
) -> None:
    """The library of Podman verifies the mirror by the CA in its folder of certificates."""
    (short / "root").mkdir()
    system = System(short / "root", encrypted)
    system.setup("podman", "4.3.1", "--ca", authority.ca_file)
    copy = [*system.wrapper("/etc/containers"), program("skopeo"), "--insecure-policy", "copy"]
    assert complaint([*copy, "docker://docker.io/library/small:1", f"dir:{short / 'small'}"]) == ""
    assert arrived(encrypted)


@pytest.fixture
def network() -> Iterator[Namespace]:
    """An address of this machine that is not on loopback, where Docker would trust every registry."""
    with namespace() as found:
        yield found


@pytest.mark.needs("dockerd", "docker", "containerd", "ip")
def test_docker_trusts_a_plain_mirror_of_the_network(
    library: Library, hub: Origin, network: Namespace, tmp_path: Path, short: Path
) -> None:
    """Pulls by the mirror's own name work, which need insecure-registries on a network."""
    (short / "root").mkdir()
    address = f"{network.here}:{free_port()}"
    with Mirror(tmp_path / "mirror", hub.url, "--listen", address) as mirror:
        mirror.url = f"http://{address}"
        system = System(short / "root", mirror)
        system.setup("docker", "20.10.24")
        with dockerd(system, short / "d", program("dockerd"), "vfs") as docker:
            run([*docker, "pull", f"{address}/docker.io/library/small:1"])
            assert address in run([*docker, "info"]).stdout
        assert arrived(mirror)


@pytest.mark.needs("dockerd", "docker", "containerd", "ip")
@pytest.mark.parametrize("store", ["classic", "containerd"])
def test_docker_knows_the_ca_of_the_mirror(
    library: Library,
    hub: Origin,
    network: Namespace,
    authority: Authority,
    tmp_path: Path,
    short: Path,
    store: str,
) -> None:
    """Each image store reads another folder; on a network both verify the mirror."""
    (short / "root/etc").mkdir(parents=True)
    (short / "root/etc/hosts").write_text(f"127.0.0.1 localhost\n{network.here} hub.test\n")
    port = free_port()
    flags = ("--listen", f"{network.here}:{port}")
    with Encrypted(tmp_path / "encrypted", hub.url, authority, *flags) as mirror:
        mirror.url = f"https://hub.test:{port}"
        system = System(short / "root", mirror)
        version = "20.10.24" if store == "classic" else "29.1.0"
        system.setup("docker", version, "--ca", authority.ca_file, wrapper=system.wrapper("/etc/hosts"))
        daemon = program("dockerd") if store == "classic" else tool("dockerd")
        config = system.folder / "etc/docker/daemon.json"
        env = None
        if store == "containerd":
            settings = json.loads(config.read_text()) | {"features": {"containerd-snapshotter": True}}
            config.write_text(json.dumps(settings))
            env = {"PATH": f"{tool('containerd').parent}:{os.environ['PATH']}"}
        driver = "vfs" if store == "classic" else "native"
        with dockerd(system, short / "d", daemon, driver, env=env, hosts=True) as docker:
            run([*docker, "pull", "small:1"])
        assert arrived(mirror)
