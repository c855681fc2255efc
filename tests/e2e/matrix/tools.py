"""Clients without a daemon, each a command that writes files."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import get_ident

from tests.e2e.clients import POLICY, complaint
from tests.e2e.matrix.content import Content, not_whole
from tests.e2e.matrix.stage import OTHER, Stage
from tests.e2e.matrix.ways import Way
from tests.pinned import pinned
from tests.programs import program

Command = Sequence[str | Path]

SCRIPTS = Path(__file__).parent / "scripts"

REGISTRIES = """
unqualified-search-registries = []

[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "{address}"
insecure = true

[[registry]]
location = "{other}"
[[registry.mirror]]
location = "{address}/{other}"
insecure = true
"""


def registries(stage: Stage) -> dict[str, str]:
    """Return the environment that has the Podman family use the mirror."""
    path = written(stage.folder / "registries.conf", REGISTRIES.format(address=stage.address, other=OTHER))
    written(stage.folder / "policy.json", POLICY)
    return {"CONTAINERS_REGISTRIES_CONF": str(path), "HOME": str(stage.folder)}


def written(path: Path, text: str) -> Path:
    """Write a file unless it is there; clients that run at the same time may read it meanwhile."""
    if not path.exists():
        scratch = path.with_suffix(f".{get_ident()}")
        scratch.write_text(text)
        scratch.rename(path)
    return path


def ran(command: Command, content: Content, folder: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a client that writes into `folder`; return its complaint, or what is missing, "" for neither."""
    return complaint(command, env) or not_whole(folder, content.needed)


def tool(name: str, binary: str = "") -> Path:
    return pinned()[name].folder / (binary or name)


def crane(stage: Stage, way: Way, content: Content, folder: Path) -> str:
    reference = way.reference(stage.address, content)
    return ran([tool("crane"), "pull", "--format=oci", reference, folder], content, folder)


def oras(stage: Stage, way: Way, content: Content, folder: Path) -> str:
    reference = way.reference(stage.address, content)
    options = ["--from-plain-http", "--to-oci-layout"]
    return ran([tool("oras"), "copy", *options, reference, f"{folder}:1"], content, folder)


def regctl(stage: Stage, way: Way, content: Content, folder: Path) -> str:
    hosts = {
        stage.address: {"tls": "disabled", "hostname": stage.address},
        "docker.io": {"mirrors": [stage.address], "hostname": "registry-1.docker.io"},
        OTHER: {"mirrors": [stage.address], "hostname": OTHER},
    }
    config = written(stage.folder / "regctl.json", json.dumps({"hosts": hosts}))
    reference = way.reference(stage.address, content)
    command: Command = [tool("regctl"), "image", "copy", reference, f"ocidir://{folder}:1"]
    return ran(command, content, folder, {"REGCTL_CONFIG": str(config)})


def cosign(stage: Stage, way: Way, content: Content, folder: Path) -> str:
    reference = way.reference(stage.address, content)
    return ran([tool("cosign"), "save", "--dir", folder, reference], content, folder)


def helm(stage: Stage, way: Way, content: Content, folder: Path, version: str = "") -> str:
    """Pull a chart, which is the one layer; with a range as `version`, Helm lists the tags first."""
    folder.mkdir()
    url = f"oci://{way.repository(stage.address, content)}"
    command: Command = [
        tool("helm"),
        "pull",
        url,
        "--version",
        version or content.tag,
        "--plain-http",
        "-d",
        folder,
    ]
    env = {"HOME": str(stage.folder)}
    said = complaint(command, env)
    for archive in folder.glob("*.tgz"):
        archive.rename(folder / content.layers[0].removeprefix("sha256:"))
    return said or not_whole(folder, content.layers)


def containers_image(stage: Stage, way: Way, content: Content, folder: Path) -> str:
    reference = f"docker://{way.reference(stage.address, content)}"
    command: Command = [tool("containers-image", "copy"), reference, f"dir:{folder}"]
    return ran(command, content, folder, registries(stage))


def skopeo(stage: Stage, way: Way, content: Content, folder: Path) -> str:
    # Skopeo 1.9 does not read CONTAINERS_REGISTRIES_CONF, as Podman and newer libraries do.
    conf = ["--registries-conf", registries(stage)["CONTAINERS_REGISTRIES_CONF"], "--insecure-policy"]
    options = ["copy", "--all", "--preserve-digests", "--src-tls-verify=false"]
    reference = f"docker://{way.reference(stage.address, content)}"
    return ran([program("skopeo"), *conf, *options, reference, f"dir:{folder}"], content, folder)


def lazy_reader(stage: Stage, way: Way, content: Content, folder: Path) -> str:
    """Run the script that reads as a lazy snapshotter does."""
    folder.mkdir()
    repository = way.repository("", content).removeprefix("/")
    command: Command = [sys.executable, SCRIPTS / "pull_lazily.py"]
    said = complaint([*command, stage.address, repository, content.tag, folder])
    return said or not_whole(folder, content.blobs)


def python_script(name: str, stage: Stage, way: Way, content: Content, folder: Path) -> str:
    """Run the script of a Python client. It writes the blobs of the image, and no manifest."""
    return _script([sys.executable, _file(name, "py")], "PYTHONPATH", name, stage, way, content, folder)


def node_script(name: str, stage: Stage, way: Way, content: Content, folder: Path) -> str:
    """Run the script of a client for Node.js, likewise."""
    command: Command = [program("node"), _file(name, "js")]
    return _script(command, "NODE_PATH", name, stage, way, content, folder)


def _script(
    command: Command,
    variable: str,
    name: str,
    stage: Stage,
    way: Way,
    content: Content,
    folder: Path,
) -> str:
    folder.mkdir()
    modules = pinned()[name].folder
    if variable == "NODE_PATH":
        modules /= "node_modules"
    repository = way.repository("", content).removeprefix("/")
    env = {variable: str(modules), "HOME": str(stage.folder), "PYTHONWARNINGS": "ignore"}
    said = complaint([*command, stage.address, repository, content.tag, folder], env)
    return said or not_whole(folder, content.blobs)


def _file(name: str, suffix: str) -> Path:
    return SCRIPTS / f"pull_{name.replace('-', '_')}.{suffix}"
