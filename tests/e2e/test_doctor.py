"""`registry-mirror doctor --client` beside real clients: configured, not configured, configured wrongly."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients import POLICY
from tests.e2e.mirror import PROGRAM, Mirror
from tests.e2e.processes import Process, attempt
from tests.e2e.test_setup import CONTAINERD, NATIVE, TWO_FOLDERS, System, dockerd, system, tool  # noqa: F401
from tests.programs import program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", "busybox", root=True),
    pytest.mark.timeout(300),
]


def examine(
    client: str, mirror: Mirror, wrapper: tuple[str, ...], env: dict[str, str], status: int
) -> list[dict[str, Any]]:
    """Run the doctor as on the client's machine; return its findings."""
    done = subprocess.run(
        [*wrapper, *map(str, PROGRAM), "doctor", "--client", client, "--mirror", mirror.url, "--json"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == status, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def said(findings: list[dict[str, Any]], severity: str) -> str:
    return "\n".join(each["what"] for each in findings if each["severity"] == severity)


@pytest.mark.needs("dockerd", "docker", "containerd")
def test_doctor_sees_whether_docker_uses_the_mirror(mirror: Mirror, system: System, short: Path) -> None:  # noqa: F811
    """The pull of a marked image arrives after `setup`, and not before it; the image is removed."""
    env = {"DOCKER_HOST": f"unix://{short}/d/docker.sock", "DOCKER_CONFIG": str(short)}
    with dockerd(system, short / "d", program("dockerd"), "vfs"):
        before = examine("docker", mirror, system.wrapper("/etc/docker"), env, 2)
    assert "the daemon does not have the mirror in effect" in said(before, "error")
    assert "its pulls of docker.io do not arrive at the mirror" in said(before, "error")
    assert all(
        "registry-mirror setup docker" in each["mend"] for each in before if each["severity"] == "error"
    )
    system.setup("docker", "20.10.24")
    env["DOCKER_HOST"] = f"unix://{short}/e/docker.sock"
    with dockerd(system, short / "e", program("dockerd"), "vfs") as docker:
        after = examine("docker", mirror, system.wrapper("/etc/docker"), env, 0)
        assert attempt([*docker, "image", "ls", "--quiet"]).stdout == ""
    assert "its pulls of docker.io arrive at the mirror" in said(after, "fine")
    assert "the classic image store" in said(after, "fine")


@pytest.mark.needs("docker")
def test_doctor_with_the_containerd_store_of_docker(mirror: Mirror, system: System, short: Path) -> None:  # noqa: F811
    """The store is told, and its pull of a marked index has the digest that is expected."""
    system.setup("docker", "29.1.0")
    config = system.folder / "etc/docker/daemon.json"
    settings = json.loads(config.read_text()) | {"features": {"containerd-snapshotter": True}}
    config.write_text(json.dumps(settings))
    env = {"PATH": f"{tool('containerd').parent}:{os.environ['PATH']}"}
    with dockerd(system, short / "d", tool("dockerd"), "native", env=env):
        env["DOCKER_HOST"] = f"unix://{short}/d/docker.sock"
        found = examine("docker", mirror, system.wrapper("/etc/docker"), env, 0)
    assert "the containerd image store" in said(found, "fine")
    assert "its pulls of docker.io arrive at the mirror" in said(found, "fine")


@pytest.mark.parametrize("folders", ["none", "two", "one"])
def test_doctor_sees_whether_kubernetes_uses_the_mirror(
    mirror: Mirror,
    system: System,  # noqa: F811
    short: Path,
    folders: str,
) -> None:
    """hosts.toml that CRI does not read, for want of `config_path` or for two folders in it, is found out."""
    config = system.folder / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    text = "version = 3\n" + CONTAINERD.format(folder=short) + NATIVE
    config.write_text(text)
    system.setup("containerd", "2.4.2")
    if folders != "one":
        config.write_text(text + (TWO_FOLDERS if folders == "two" else ""))
    daemon: list[str | Path] = [*system.wrapper("/etc/containerd"), tool("containerd"), "--config", config]
    ctr: list[str | Path] = [tool("containerd", "ctr"), "--address", short / "c.sock", "version"]
    path = f"{tool('containerd').parent}:{tool('crictl').parent}:{os.environ['PATH']}"
    endpoint = f"unix://{short}/c.sock"
    env = {"PATH": path, "IMAGE_SERVICE_ENDPOINT": endpoint, "CONTAINER_RUNTIME_ENDPOINT": endpoint}
    with Process(daemon, short / "c.log", lambda: attempt(ctr).returncode == 0):
        status = 0 if folders == "one" else 2
        found = examine("containerd", mirror, system.wrapper("/etc/containerd"), env, status)
    if folders == "one":
        assert "its pulls of docker.io arrive at the mirror" in said(found, "fine")
        assert "its pulls of ghcr.io arrive at the mirror" in said(found, "fine")
    else:
        assert "do not arrive" in said(found, "error")
        assert ("config_path is not set" in said(found, "error")) is (folders == "none")
        assert ("two folders" in said(found, "error")) is (folders == "two")


@pytest.mark.needs("podman")
def test_doctor_sees_whether_podman_uses_the_mirror(mirror: Mirror, system: System, short: Path) -> None:  # noqa: F811
    """Two registries are tried, as Podman names each by its path."""
    containers = system.folder / "etc/containers"
    containers.mkdir(parents=True)
    (containers / "policy.json").write_text(POLICY)
    (short / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{short}/p"\nrunroot = "{short}/r"\n'
    )
    env = {"CONTAINERS_STORAGE_CONF": str(short / "storage.conf"), "HOME": str(short)}
    before = examine("podman", mirror, system.wrapper("/etc/containers"), env, 2)
    assert "do not arrive" in said(before, "error")
    system.setup("podman", "4.3.1")
    after = examine("podman", mirror, system.wrapper("/etc/containers"), env, 0)
    assert "its pulls of docker.io arrive at the mirror" in said(after, "fine")
    assert "its pulls of ghcr.io arrive at the mirror" in said(after, "fine")
