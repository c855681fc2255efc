"""Clients with a daemon that keeps the images: containerd, dockerd, BuildKit, and Podman's own store."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.e2e.clients import Docker, complaint, docker
from tests.e2e.hub import mounted
from tests.e2e.matrix.content import Content, not_whole
from tests.e2e.matrix.stage import OTHER, Stage
from tests.e2e.matrix.tools import registries, tool
from tests.e2e.matrix.ways import Way
from tests.e2e.processes import Process, attempt, run
from tests.pinned import pinned
from tests.programs import program

# Registry, URL of the mirror, more lines: `ns` alone names the upstream, or the URL does as well.
HOSTS = {
    Way.NS: ("_default", "http://{address}", ""),
    Way.PATH: (OTHER, "http://{address}/{other}", ""),
    Way.OVERRIDE: (OTHER, "http://{address}/v2/{other}", "  override_path = true\n"),
}
HOSTS_TOML = '[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'

OLD, NEW = 2, 3  # versions of containerd's configuration

CONFIG = """
version = {version}
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = [{disabled}]
[grpc]
  address = "{folder}/c.sock"
[ttrpc]
  address = "{folder}/c.sock.ttrpc"
"""

CRI = '"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"'

TRANSFER = """
[plugins."io.containerd.transfer.v1.local"]
  concurrent_layer_fetch_buffer = {buffer}
  max_concurrent_downloads = 4
  [[plugins."io.containerd.transfer.v1.local".unpack_config]]
    platform = "linux/amd64"
    snapshotter = "native"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{folder}/ns"
"""


@dataclass(frozen=True)
class Ctr:
    """A `ctr`, and the folder of its containerd."""

    folder: Path
    program: str | Path

    def __call__(self, *arguments: str | Path) -> str:
        return run(self.command(*arguments)).stdout

    def command(self, *arguments: str | Path) -> list[str | Path]:
        return [self.program, "--address", self.folder / "c.sock", *arguments]

    def pull(self, stage: Stage, way: Way, content: Content, *options: str) -> str:
        """Pull, and forget the image; return the complaint, or what is missing, "" for neither."""
        reference = way.reference(stage.address, content)
        hosts: Sequence[str | Path] = (
            ("--hosts-dir", self.folder / way.slug) if way in HOSTS else ("--plain-http",)
        )
        pull = ("images", "pull", "--snapshotter", "native", *hosts, *options, reference)
        said = complaint(self.command(*pull))
        held = set(self("content", "ls", "--quiet").split())
        attempt(self.command("images", "rm", "--sync", reference))
        lacks = content.needed - held
        return said or (f"containerd lacks {sorted(lacks)}" if lacks else "")


class Addressed(Protocol):
    """A stage, or a mirror alone."""

    @property
    def address(self) -> str: ...


def write_hosts(stage: Addressed, folder: Path, way: Way) -> None:
    """Write the hosts.toml of a way below `folder`."""
    registry, url, more = HOSTS[way]
    (folder / registry).mkdir(parents=True)
    mirror = url.format(address=stage.address, other=OTHER)
    (folder / registry / "hosts.toml").write_text(HOSTS_TOML.format(url=mirror) + more)


def start_containerd(
    stage: Addressed,
    folder: Path,
    programs: tuple[str | Path, str | Path],
    version: int,
    buffer: int = 0,
    disabled: str = CRI,
) -> Iterator[Ctr]:
    """Run a containerd; `programs`: the daemon and `ctr`.

    `buffer`: bytes of each range in which the daemon fetches a layer, 0 for all at once.
    """
    folder.mkdir()
    daemon, ctr = programs
    config = CONFIG.format(folder=folder, version=version, disabled=disabled)
    if version == NEW:
        config += TRANSFER.format(folder=folder, buffer=buffer)
    (folder / "config.toml").write_text(config)
    for way in HOSTS:
        write_hosts(stage, folder / way.slug, way)
    command: list[str | Path] = [daemon, "--config", folder / "config.toml"]
    ready = [ctr, "--address", folder / "c.sock", "version"]
    with Process(command, folder / "containerd.log", lambda: attempt(ready).returncode == 0):
        yield Ctr(folder, ctr)


def old_containerd(stage: Stage, way: Way, content: Content, _: Path) -> str:
    client = stage.daemon(
        "c1", lambda folder: start_containerd(stage, folder, (program("containerd"), program("ctr")), OLD)
    )
    return client.pull(stage, way, content)


def containerd(stage: Stage, way: Way, content: Content, *options: str, buffer: int = 0) -> str:
    """Pull with the pinned containerd, by its transfer service unless `options` say otherwise."""
    programs = tool("containerd"), tool("containerd", "ctr")
    client = stage.daemon(
        f"c2-{buffer}", lambda folder: start_containerd(stage, folder, programs, NEW, buffer)
    )
    return client.pull(stage, way, content, *options)


def kubernetes(stage: Stage, way: Way, content: Content, _: Path) -> str:
    """Pull as a kubelet does, by the CRI of the pinned containerd."""
    programs = tool("containerd"), tool("containerd", "ctr")
    client = stage.daemon("cri", lambda folder: start_containerd(stage, folder, programs, NEW, disabled=""))
    reference = way.reference(stage.address, content)
    endpoint = f"unix://{client.folder}/c.sock"
    crictl: list[str | Path] = [tool("crictl"), "--config", "/dev/null", "--image-endpoint", endpoint]
    said = complaint([*crictl, "pull", reference])
    held = set(client("--namespace", "k8s.io", "content", "ls", "--quiet").split())
    names = client("--namespace", "k8s.io", "images", "ls", "--quiet").split()
    attempt(client.command("--namespace", "k8s.io", "images", "rm", "--sync", *names))
    lacks = content.needed - held
    return said or (f"containerd lacks {sorted(lacks)}" if lacks else "")


def _docker_pull(client: Docker, stage: Stage, way: Way, content: Content) -> str:
    """Pull, compare digest and layers, and forget the image. A mirror setting of Docker is for docker.io."""
    reference = (Way.MIRROR if way is Way.PATH else way).reference(stage.address, content)
    if said := client.try_pull(reference):
        return said
    found = client.inspect(reference)
    client.forget(reference)
    if not any(each.endswith(f"@{content.digest}") for each in found["RepoDigests"]):
        return f"{content.digest} is not among {found['RepoDigests']}"
    layers = tuple(found["RootFS"]["Layers"])
    return "" if layers == content.diff_ids else f"the layers are {layers}, not {content.diff_ids}"


def old_docker(stage: Stage, way: Way, content: Content, _: Path) -> str:
    client = stage.daemon("d20", lambda folder: _dockerd(folder, f"http://{stage.address}"))
    return _docker_pull(client, stage, way, content)


def docker_with_containerd_store(stage: Stage, way: Way, content: Content, _: Path) -> str:
    """Pull with the containerd store, which reads hosts.toml below /etc/docker as well."""
    etc = stage.folder / "etc-docker"
    if not etc.exists():
        write_hosts(stage, etc / "certs.d", Way.NS)
    mirror = f"http://{stage.address}"
    client = stage.daemon(
        "d29c", lambda folder: _new_dockerd(folder, mirror, True, mounted({etc: "/etc/docker"}))
    )
    return _docker_pull(client, stage, way, content)


def docker_with_classic_store(stage: Stage, way: Way, content: Content, _: Path) -> str:
    """Pull with the classic store, whose daemon has a mirror with a path."""
    mirror = f"http://{stage.address}/{OTHER}"
    client = stage.daemon("d29g", lambda folder: _new_dockerd(folder, mirror, False))
    return _docker_pull(client, stage, way, content)


def _dockerd(folder: Path, mirror: str) -> Iterator[Docker]:
    with docker(folder, [mirror]) as client:
        yield client


def _new_dockerd(
    folder: Path, mirror: str, containerd_store: bool, wrapper: Sequence[str] = ()
) -> Iterator[Docker]:
    path = f"{pinned()['containerd'].folder}:{os.environ['PATH']}"
    with docker(
        folder,
        [mirror],
        wrapper,
        env={"PATH": path},
        daemon=tool("dockerd"),
        storage="native" if containerd_store else "vfs",
        features={"containerd-snapshotter": containerd_store},
    ) as client:
        yield client


BUILDKITD = """
root = "{folder}/root"
[grpc]
  address = ["unix://{folder}/b.sock"]
[worker.containerd]
  enabled = false
[worker.oci]
  enabled = true
  snapshotter = "native"
[registry."docker.io"]
  mirrors = ["{address}"]
[registry."{other}"]
  mirrors = ["{address}/{other}"]
[registry."{address}"]
  http = true
"""


def start_buildkitd(stage: Addressed, folder: Path) -> Iterator[list[str | Path]]:
    """Run buildkitd; yield the start of a `buildctl` command."""
    folder.mkdir()
    (folder / "b.toml").write_text(BUILDKITD.format(folder=folder, address=stage.address, other=OTHER))
    command: list[str | Path] = [tool("buildkit", "buildkitd"), "--config", folder / "b.toml"]
    buildctl: list[str | Path] = [tool("buildkit", "buildctl"), "--addr", f"unix://{folder}/b.sock"]
    ready = [*buildctl, "debug", "workers"]
    with Process(command, folder / "buildkitd.log", lambda: attempt(ready).returncode == 0):
        yield buildctl


def buildkit(stage: Stage, way: Way, content: Content, folder: Path) -> str:
    """Build `FROM` the image alone, and forget it: the layers are the image's own."""
    buildctl = stage.daemon("b", lambda place: start_buildkitd(stage, place))
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {way.reference(stage.address, content)}\n")
    source = [f"--local={each}={folder}" for each in ("context", "dockerfile")]
    output = f"type=oci,tar=false,dest={folder / 'out'}"
    said = complaint([*buildctl, "build", "--frontend=dockerfile.v0", *source, "--output", output])
    attempt([*buildctl, "prune", "--all"])
    return said or not_whole(folder / "out", content.layers)


def podman(stage: Stage, way: Way, content: Content, _: Path) -> str:
    """Pull with Debian's Podman, compare digest and layers, and forget the image."""
    env = registries(stage)
    stores: list[str | Path] = ["--root", stage.folder / "p/root", "--runroot", stage.folder / "p/run"]
    command: list[str | Path] = [program("podman"), *stores, "--storage-driver", "vfs"]
    command += ["--cgroup-manager", "cgroupfs"]
    policy: list[str | Path] = ["--signature-policy", stage.folder / "policy.json", "--tls-verify=false"]
    reference = way.reference(stage.address, content)
    if said := complaint([*command, "pull", *policy, reference], env):
        return said
    shown = ["--format", "{{.RepoDigests}} {{.RootFS.Layers}}"]
    found = run([*command, "image", "inspect", *shown, reference], env).stdout
    run([*command, "rmi", "--all", "--force"], env)
    lacks = [each for each in (content.digest, *content.diff_ids) if each not in found]
    return f"{lacks} not in {found}" if lacks else ""
