"""The clients that can be set up: their writers, the programs that tell their versions, and their checks."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from mirror.setup import arguments, buildkit, containerd, docker, k3s, podman
from mirror.setup.hosts_toml import parsed
from mirror.setup.plan import File, Request, SetupError, SetupPlan, Version

# Time limit for a client's program, in seconds.
PATIENCE = 60.0

# Folders where daemons are, which not every user has on PATH.
DAEMONS = "/usr/local/sbin:/usr/sbin:/sbin"

# Where Podman's run-time folder may lie: it wants a path of at most 50 characters, and TMPDIR may be longer.
SHORT = Path("/tmp")  # noqa: S108  # the folder in it is made for this user alone

# A check returns what the client says about a file that it cannot read, "" for none. It gets the path of the
# text, and the version.
Check = Callable[[Path, Version | None], str]


class Client(Struct, frozen=True):
    """A client. `program` tells its version; `checks` are by the name of a file."""

    plan: Callable[[Request], SetupPlan]
    program: str | None = None
    checks: Mapping[str, Check] = {}


def program(name: str) -> str | None:
    """Return the path of an installed program."""
    return shutil.which(name) or shutil.which(name, path=DAEMONS)


def output_of(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a program without a shell; return its exit status and what it printed."""
    try:
        done = subprocess.run(  # noqa: S603  # fixed names, found on PATH
            [str(each) for each in command],
            env=None if env is None else dict(env),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, f"{command[0]} did not answer: {error}"
    return done.returncode, done.stdout if done.returncode == 0 else f"{done.stdout}{done.stderr}"


def installed_version(client: Client) -> Version | None:
    """Return the version of the client's program on this machine; None if it is not here."""
    found = None if client.program is None else program(client.program)
    if found is None:
        return None
    status, text = output_of([found, "--version"])
    return Version.parse(text) if status == 0 else None


def check(client: Client, file: File, version: Version | None) -> str:
    """Return what is wrong with a file of a plan, as its client sees it; "" if nothing is."""
    name = file.path.rpartition("/")[2]
    found = client.checks.get(name) or _PARSERS.get(name.rpartition(".")[2])
    if found is None:
        return ""
    with TemporaryDirectory(prefix="registry-mirror-") as folder:
        path = Path(folder) / name
        path.write_text(file.text)
        return found(path, version)


def _dockerd(path: Path, version: Version | None) -> str:
    """Ask dockerd itself if it can validate, from Docker 23 on; the file must be JSON in any case."""
    daemon = program("dockerd")
    if daemon is None or "--validate" not in output_of([daemon, "--help"])[1]:
        return _json(path, version)
    status, text = output_of([daemon, "--validate", "--config-file", path])
    return text.strip() if status else ""


def _containerd(path: Path, _version: Version | None) -> str:
    """Have containerd print the configuration that it would use."""
    daemon = program("containerd")
    if daemon is None:
        return _toml(path, None)
    status, text = output_of([daemon, "--config", path, "config", "dump"])
    if status:
        return text.strip()
    wanted, effective = (containerd.config_path(parsed(each, path.name)) for each in (path.read_text(), text))
    if wanted and effective and effective != wanted:  # nothing in effect: another version than this program's
        return (
            f"config_path is {wanted} in it, and {effective!r} in effect: a file that it imports sets another"
        )
    return ""


def _podman(path: Path, _version: Version | None) -> str:
    """Have Podman read the file as its registries.conf, without its other settings."""
    found = program("podman")
    if found is None:
        return _toml(path, None)
    env = {
        "CONTAINERS_REGISTRIES_CONF": str(path),
        "HOME": str(path.parent),
        "PATH": f"/usr/bin:/bin:{DAEMONS}",
    }
    with TemporaryDirectory(prefix="mirror-", dir=SHORT) as run:
        stores: list[str | Path] = ["--root", path.parent / "root", "--runroot", run]
        status, text = output_of(
            [found, *stores, "--storage-driver", "vfs", "info", "--format", "{{json .Registries}}"], env
        )
    return text.strip() if status else ""


def _json(path: Path, _version: Version | None) -> str:
    try:
        json.loads(path.read_text())
    except ValueError as error:
        return f"it is not JSON: {error}"
    return ""


def _toml(path: Path, _version: Version | None) -> str:
    try:
        parsed(path.read_text(), path.name)
    except SetupError as error:
        return str(error)
    return ""


def _yaml(path: Path, _version: Version | None) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        YAML(typ="safe").load(path.read_text())
    except YAMLError as error:
        return f"it is not YAML: {error}"
    return ""


_PARSERS: Mapping[str, Check] = {"json": _json, "toml": _toml, "yaml": _yaml, "yml": _yaml, "conf": _toml}

_DROP_INS: Mapping[str, Check] = {podman.NAME: _podman, podman.LAST_NAME: _podman}

CLIENTS: Mapping[str, Client] = {
    "docker": Client(docker.plan, "dockerd", {"daemon.json": _dockerd}),
    "containerd": Client(containerd.plan, "containerd", {"config.toml": _containerd}),
    "podman": Client(podman.plan, "podman", _DROP_INS),
    "crio": Client(podman.crio_plan, "crio", _DROP_INS),
    "k3s": Client(k3s.plan, "k3s"),
    "rke2": Client(k3s.rke2_plan, "rke2"),
    "buildkit": Client(buildkit.plan, "buildkitd"),
    "nerdctl": Client(containerd.nerdctl_plan, "nerdctl"),
    "kaniko": Client(arguments.kaniko),
    "kind": Client(arguments.kind, "kind"),
    "minikube": Client(arguments.minikube, "minikube"),
    "docker-machine": Client(arguments.docker_machine, "docker-machine"),
}
