"""Clients that `registry-mirror setup` has set up: each pulls, and the mirror's log shows the requests."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.clients import POLICY, complaint
from tests.e2e.conftest import Library
from tests.e2e.hub import mounted
from tests.e2e.mirror import PROGRAM, Mirror
from tests.e2e.origin import Origin
from tests.e2e.processes import Process, attempt, run
from tests.pinned import pinned
from tests.programs import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", root=True),
    pytest.mark.timeout(300),
]

SMALL = "library/small"


def tool(name: str, binary: str = "") -> Path:
    """Return a pinned client's program; the test is skipped where it is not made."""
    if not pinned()[name].installed:
        pytest.skip(f"{name} is not made: .ci/clients")
    return pinned()[name].folder / (binary or name)


class System:
    """Folder in the place of "/", written by the command; its folders are mounted over the real ones."""

    def __init__(self, folder: Path, mirror: Mirror) -> None:
        self.folder, self._mirror = folder, mirror

    def setup(self, client: str, version: str, *arguments: str | Path, wrapper: Sequence[str] = ()) -> None:
        command = [
            *wrapper,
            *PROGRAM,
            "setup",
            client,
            "--root",
            self.folder,
            "--client-version",
            version,
            *arguments,
        ]
        run([*command, "--mirror", self._mirror.url, "--write"])
        again = run([*command, "--mirror", self._mirror.url, "--write"])
        assert again.stdout == "", "a second run changes something"

    def script(self, client: str, version: str = "") -> None:
        """Set up by the script that the mirror serves."""
        fetched = run(["curl", "-fsS", f"{self._mirror.url}/setup/{client}.sh"]).stdout
        file = self.folder.parent / f"{client}.sh"
        file.write_text(fetched)
        run(["sh", file], {"ROOT": str(self.folder), "VERSION": version})

    def wrapper(self, *folders: str) -> tuple[str, ...]:
        """Return the command that runs a program for which these folders are the system's."""
        return mounted({self.folder / each.lstrip("/"): each for each in folders})


@pytest.fixture
def system(short: Path, mirror: Mirror) -> System:
    (short / "root").mkdir()
    return System(short / "root", mirror)


@pytest.fixture(params=["command", "script"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def arrived(mirror: Mirror, repository: str = SMALL) -> bool:
    return bool(mirror.lines(repository))


@contextmanager
def dockerd(
    system: System,
    folder: Path,
    daemon: str | Path,
    store: str,
    *,
    env: dict[str, str] | None = None,
    hosts: bool = False,
) -> Iterator[Sequence[str | Path]]:
    """Run a dockerd with the configuration of `system` and nothing else; yield the start of a command."""
    folder.mkdir()
    address = f"unix://{folder}/docker.sock"
    (system.folder / "etc/docker").mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        *system.wrapper("/etc/docker", *(["/etc/hosts"] if hosts else [])),
        daemon,
        *("--host", address, "--data-root", folder / "data", "--exec-root", folder / "exec"),
        *("--pidfile", folder / "docker.pid", "--storage-driver", store),
        *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
    ]
    docker: list[str | Path] = [program("docker"), "--host", address]
    ready = [*docker, "info"]
    with Process(command, folder / "dockerd.log", lambda: attempt(ready).returncode == 0, env):
        yield docker


@pytest.mark.needs("dockerd", "docker", "containerd")
def test_docker_of_debian_uses_the_mirror(
    library: Library, mirror: Mirror, system: System, short: Path, way: str
) -> None:
    """The classic store of Docker 20.10 pulls through the mirror of daemon.json."""
    (system.folder / "etc/docker").mkdir(parents=True)
    (system.folder / "etc/docker/daemon.json").write_text('{"max-concurrent-downloads": 2}')
    if way == "command":
        system.setup("docker", "20.10.24")
    else:
        system.script("docker")
    with dockerd(system, short / "d", program("dockerd"), "vfs") as docker:
        assert mirror.address in run([*docker, "info"]).stdout
        run([*docker, "pull", "small:1"])
    assert arrived(mirror)


@pytest.mark.needs("docker")
def test_docker_with_the_containerd_store_uses_the_mirror(
    library: Library, mirror: Mirror, system: System, short: Path
) -> None:
    """Docker 29's own check passes, docker.io comes by registry-mirrors, another registry by hosts.toml."""
    daemon = tool("dockerd")
    env = {"PATH": f"{tool('containerd').parent}:{os.environ['PATH']}"}
    system.setup("docker", "29.1.0")
    config = system.folder / "etc/docker/daemon.json"
    run([daemon, "--validate", "--config-file", config])
    settings = json.loads(config.read_text()) | {"features": {"containerd-snapshotter": True}}
    config.write_text(json.dumps(settings))
    with dockerd(system, short / "d", daemon, "native", env=env) as docker:
        run([*docker, "pull", "small:1"])
        assert arrived(mirror)
        attempt([*docker, "pull", "quay.io/org/none:1"])
        assert arrived(mirror, "org/none")


CONTAINERD = """
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/c.sock"
[ttrpc]
  address = "{folder}/c.sock.ttrpc"
"""

NATIVE = """
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "native"
"""


@pytest.mark.needs("containerd", "ctr")
def test_containerd_1_uses_the_mirror(
    library: Library, mirror: Mirror, system: System, short: Path, way: str
) -> None:
    """containerd 1.6 starts with the new config.toml, and `ctr` goes by the new hosts.toml."""
    config = system.folder / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("version = 2\n" + CONTAINERD.format(folder=short))
    if way == "command":
        system.setup("containerd", "1.6.20")
    else:
        system.script("containerd", "1.6.20")
    dumped = run([program("containerd"), "--config", config, "config", "dump"]).stdout
    assert 'config_path = "/etc/containerd/certs.d"' in dumped
    ctr: list[str | Path] = [program("ctr"), "--address", short / "c.sock"]
    daemon: list[str | Path] = [program("containerd"), "--config", config]
    with Process(daemon, short / "c.log", lambda: attempt([*ctr, "version"]).returncode == 0):
        hosts = system.folder / "etc/containerd/certs.d"
        pull = [*ctr, "images", "pull", "--snapshotter", "native", "--hosts-dir", hosts]
        assert complaint([*pull, "docker.io/library/small:1"]) == ""
    assert arrived(mirror)


@contextmanager
def cri(system: System, folder: Path, short: Path) -> Iterator[list[str | Path]]:
    """Run the containerd in `folder` with the configuration of `system`; yield the start of a `crictl`."""
    ctr: list[str | Path] = [folder / "ctr", "--address", short / "c.sock"]
    config = system.folder / "etc/containerd/config.toml"
    daemon: list[str | Path] = [*system.wrapper("/etc/containerd"), folder / "containerd", "--config", config]
    endpoint = ("--image-endpoint", f"unix://{short}/c.sock")
    with Process(daemon, short / "c.log", lambda: attempt([*ctr, "version"]).returncode == 0):
        yield [tool("crictl"), "--config", "/dev/null", *endpoint]


def test_containerd_2_uses_the_mirror_for_kubernetes(
    library: Library, mirror: Mirror, system: System, short: Path, way: str
) -> None:
    """The CRI of containerd 2.4 starts with the new config.toml, and reads hosts.toml with "referrers"."""
    folder = tool("containerd").parent
    config = system.folder / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("version = 3\n" + CONTAINERD.format(folder=short) + NATIVE)
    if way == "command":
        system.setup("containerd", "2.4.2")
    else:
        system.script("containerd", "2.4.2")
    with cri(system, folder, short) as crictl:
        assert complaint([*crictl, "pull", "docker.io/library/small:1"]) == ""
    assert arrived(mirror)
    assert "unknown capability" not in (short / "c.log").read_text()


def test_containerd_2_reads_no_hosts_without_config_path(
    library: Library, mirror: Mirror, system: System, short: Path
) -> None:
    """Hence the setting is written for each version: without it the CRI goes straight to the registry."""
    folder = tool("containerd").parent
    system.setup("containerd", "2.4.2")
    config = system.folder / "etc/containerd/config.toml"
    config.write_text("version = 3\n" + CONTAINERD.format(folder=short) + NATIVE)
    with cri(system, folder, short) as crictl:
        assert complaint([*crictl, "pull", "docker.io/library/small:1"]) != ""
    assert not arrived(mirror)


@pytest.mark.needs("podman")
def test_podman_uses_the_mirror(
    library: Library, mirror: Mirror, system: System, short: Path, way: str
) -> None:
    """Podman reads the drop-in beside registries.conf; Debian's own files stay."""
    _containers(system, way)
    (short / "policy.json").write_text(POLICY)
    command: list[str | Path] = [*system.wrapper("/etc/containers"), program("podman"), "--root", short / "p"]
    command += ["--runroot", short / "r", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]
    pull = [*command, "pull", "--signature-policy", short / "policy.json", "docker.io/library/small:1"]
    assert complaint(pull) == ""
    assert arrived(mirror)


@pytest.mark.needs("skopeo")
def test_skopeo_uses_the_mirror(
    library: Library, mirror: Mirror, system: System, short: Path, way: str
) -> None:
    """Skopeo, and with it the library of Buildah and CRI-O, reads the same file."""
    _containers(system, way)
    copy = [*system.wrapper("/etc/containers"), program("skopeo"), "--insecure-policy", "copy"]
    assert complaint([*copy, "docker://docker.io/library/small:1", f"dir:{short / 'small'}"]) == ""
    assert arrived(mirror)


def _containers(system: System, way: str) -> None:
    if way == "command":
        system.setup("podman", "4.3.1")
    else:
        system.script("podman")


def test_buildkit_uses_the_mirror(library: Library, mirror: Mirror, system: System, short: Path) -> None:
    """buildkitd starts with the new file, and builds from an image of the mirror."""
    buildkitd = tool("buildkit", "buildkitd")
    config = system.folder / "etc/buildkit/buildkitd.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'root = "{short}/b"\n[grpc]\n  address = ["unix://{short}/b.sock"]\n'
        '[worker.containerd]\n  enabled = false\n[worker.oci]\n  enabled = true\n  snapshotter = "native"\n'
    )
    system.setup("buildkit", "0.34.2")
    buildctl: list[str | Path] = [tool("buildkit", "buildctl"), "--addr", f"unix://{short}/b.sock"]
    (short / "context").mkdir()
    (short / "context/Dockerfile").write_text("FROM docker.io/library/small:1\n")
    source = [f"--local={each}={short / 'context'}" for each in ("context", "dockerfile")]
    output = f"type=oci,tar=false,dest={short / 'out'}"
    ready = [*buildctl, "debug", "workers"]
    with Process([buildkitd, "--config", config], short / "b.log", lambda: attempt(ready).returncode == 0):
        run([*buildctl, "build", "--frontend=dockerfile.v0", *source, "--output", output])
    assert arrived(mirror)


@pytest.mark.needs("dockerd", "docker", "containerd")
def test_undo_takes_docker_back(library: Library, mirror: Mirror, system: System, hub: Origin) -> None:
    """After --undo nothing of the setup is left."""
    (system.folder / "etc/docker").mkdir(parents=True)
    config = system.folder / "etc/docker/daemon.json"
    config.write_text("{}")
    system.setup("docker", "29.1.0")
    run([*PROGRAM, "setup", "docker", "--root", system.folder, "--undo"])
    left = [each for each in system.folder.rglob("*") if each.is_file()]
    assert (left, config.read_text()) == ([config], "{}")


TWO_FOLDERS = """
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"
"""


def test_containerd_2_with_two_folders_in_config_path(
    library: Library, mirror: Mirror, system: System, short: Path, way: str
) -> None:
    """Two folders, which `containerd config default` of 2.2 has, are one name for the transfer service."""
    folder = tool("containerd").parent
    config = system.folder / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("version = 3\n" + CONTAINERD.format(folder=short) + NATIVE + TWO_FOLDERS)
    if way == "command":
        system.setup("containerd", "2.4.2")
    else:
        system.script("containerd", "2.4.2")
    with cri(system, folder, short) as crictl:
        assert complaint([*crictl, "pull", "docker.io/library/small:1"]) == ""
    assert arrived(mirror)
