"""Real clients: dockerd, containerd, podman, skopeo, each with its own folders and the mirror configured.

The folders need short names: a socket's path may have 108 characters, podman's runroot 50.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.processes import Process, attempt, run
from tests.programs import program


def complaint(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> str:
    """Return the output of a command that failed, "" for one that succeeded."""
    done = attempt(command, env)
    return (done.stderr or done.stdout or "failed") if done.returncode else ""


@dataclass(frozen=True)
class Docker:
    """A dockerd, and the command line that talks to it."""

    folder: Path

    @property
    def socket(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def __call__(self, *arguments: str) -> str:
        return run([program("docker"), *arguments], self._env).stdout

    def try_pull(self, reference: str) -> str:
        """Pull, and return the complaint, "" for none."""
        return complaint([program("docker"), "pull", reference], self._env)

    @property
    def _env(self) -> dict[str, str]:
        return {"DOCKER_CONFIG": str(self.folder / "client"), "DOCKER_HOST": self.socket}

    def inspect(self, reference: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self("image", "inspect", reference))
        return found[0]

    def forget(self, reference: str) -> None:
        """Remove the image and all its layers."""
        self("image", "rm", "--force", self.inspect(reference)["Id"])


@contextmanager
def docker(
    folder: Path,
    mirrors: Sequence[str],
    wrapper: Sequence[str] = (),
    env: dict[str, str] | None = None,
    daemon: str | Path = "",
    storage: str = "vfs",
    **settings: object,
) -> Iterator[Docker]:
    """Run a dockerd whose `registry-mirrors` are `mirrors`; `wrapper` is the command that runs it.

    `daemon` is another dockerd than Debian's, `settings` are more of daemon.json.
    """
    folder.mkdir()
    settings |= {"registry-mirrors": list(mirrors)}
    (folder / "daemon.json").write_text(json.dumps(settings))
    client = Docker(folder)
    command: list[str | Path] = [
        *wrapper,
        daemon or program("dockerd"),
        *("--config-file", folder / "daemon.json", "--host", client.socket),
        *("--data-root", folder / "data", "--exec-root", folder / "exec"),
        *("--pidfile", folder / "docker.pid"),
        *("--storage-driver", storage, "--bridge", "none", "--iptables=false", "--ip6tables=false"),
    ]
    info = {"DOCKER_HOST": client.socket, "DOCKER_CONFIG": str(folder / "client")}
    ready = [program("docker"), "info"]
    with Process(command, folder / "dockerd.log", lambda: attempt(ready, info).returncode == 0, env):
        yield client


@dataclass(frozen=True)
class Containerd:
    """A containerd and `ctr`."""

    folder: Path
    wrapper: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str) -> str:
        return run(self.command(*arguments), self.env).stdout

    def pull(self, reference: str) -> None:
        assert self.try_pull(reference) == ""

    def try_pull(self, reference: str) -> str:
        """Pull, and return the complaint, "" for none."""
        hosts = str(self.folder / "certs.d")
        pull = ("images", "pull", "--hosts-dir", hosts, "--snapshotter", "native", reference)
        return complaint(self.command(*pull), self.env)

    def command(self, *arguments: str) -> list[str | Path]:
        return [*self.wrapper, program("ctr"), "--address", self.folder / "containerd.sock", *arguments]

    def forget(self, reference: str) -> None:
        """Remove the image and, at once, everything that no other image needs."""
        self("images", "rm", "--sync", reference)


HOSTS = """
server = "https://registry-1.docker.io"

[host."{url}"]
  capabilities = ["pull", "resolve"]
"""


@contextmanager
def containerd(
    folder: Path, mirror: str, wrapper: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Iterator[Containerd]:
    """Run a containerd with `mirror` for docker.io; `wrapper` is the command that runs `ctr`, which pulls."""
    hosts = folder / "certs.d" / "docker.io"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(HOSTS.format(url=mirror))
    socket = folder / "containerd.sock"
    (folder / "config.toml").write_text(
        f"""
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{socket}"
"""
    )
    ready = [program("ctr"), "--address", str(socket), "version"]
    command: list[str | Path] = [program("containerd"), "--config", folder / "config.toml"]
    with Process(
        command,
        folder / "containerd.log",
        lambda: attempt(ready).returncode == 0,
    ):
        yield Containerd(folder, wrapper, env or {})


REGISTRIES = """
unqualified-search-registries = []

[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "{address}"
insecure = true
"""

# Signatures are not tested, and a machine may have no policy.
POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


class Podman:
    """Podman with its own store, and the mirror in registries.conf."""

    def __init__(
        self, folder: Path, address: str, wrapper: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir()
        self._folder = folder
        self._wrapper = wrapper
        self._env = {"CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"), **(env or {})}
        (folder / "registries.conf").write_text(REGISTRIES.format(address=address))
        (folder / "policy.json").write_text(POLICY)

    def __call__(self, *arguments: str) -> str:
        return run(self._command(*arguments), self._env).stdout

    def pull(self, reference: str) -> None:
        assert self.try_pull(reference) == ""

    def try_pull(self, reference: str, *flags: str) -> str:
        """Pull, and return the complaint, "" for none."""
        policy = str(self._folder / "policy.json")
        return complaint(self._command("pull", "--signature-policy", policy, *flags, reference), self._env)

    def _command(self, *arguments: str) -> list[str | Path]:
        stores: list[str | Path] = ["--root", self._folder / "root", "--runroot", self._folder / "run"]
        drivers = ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]
        return [*self._wrapper, program("podman"), *stores, *drivers, *arguments]


class Skopeo:
    """Skopeo with the mirror's own address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def copy(self, reference: str, to: Path) -> None:
        """Copy every byte of the image into files named by their digests."""
        assert self.try_copy(reference, to) == ""

    def try_copy(self, reference: str, to: Path) -> str:
        """Copy, and return the complaint, "" for none."""
        options = ["--insecure-policy", "copy", "--all", "--preserve-digests", "--src-tls-verify=false"]
        return complaint([program("skopeo"), *options, self._source(reference), f"dir:{to}"])

    def inspect(self, reference: str) -> dict[str, Any]:
        done = run([program("skopeo"), "inspect", "--tls-verify=false", self._source(reference)])
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _source(self, reference: str) -> str:
        return f"docker://{self._address}/{reference}"


@contextmanager
def pulling_by_name(address: str, folder: Path) -> Iterator[dict[str, Callable[[str], str]]]:
    """Run clients that pull by the name of the mirror at `address`, each with folders below `folder`.

    Yield the function of each: of an image of Docker Hub, it returns the complaint, "" for none.
    """
    with ExitStack() as stack:
        daemon = stack.enter_context(docker(folder / "docker", []))
        ctr = stack.enter_context(containerd(folder / "containerd", f"http://{address}"))
        podman, skopeo = Podman(folder / "podman", address), Skopeo(address)
        yield {
            "docker": lambda name: daemon.try_pull(f"{address}/docker.io/{name}"),
            "containerd": lambda name: ctr.try_pull(f"{address}/docker.io/{name}"),
            "podman": lambda name: podman.try_pull(f"{address}/docker.io/{name}", "--tls-verify=false"),
            "skopeo": lambda name: skopeo.try_copy(f"docker.io/{name}", folder / "skopeo"),
        }
