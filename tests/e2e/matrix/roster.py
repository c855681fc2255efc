"""Clients of the matrix, and the cells: each client in each of its ways."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.e2e.matrix import daemons, tools
from tests.e2e.matrix.content import Content
from tests.e2e.matrix.stage import Stage
from tests.e2e.matrix.ways import Way
from tests.pinned import pinned

# Pull, verify, forget: the complaint, or what is missing or wrong then, "" for neither.
Pull = Callable[[Stage, Way, Content, Path], str]

NAMED = (Way.NAME, Way.UPSTREAM)
SET = (Way.MIRROR, Way.PATH, *NAMED)

DOCKER = ("dockerd", "docker", "containerd")
CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Client:
    """A client. `pinned`: names in `.ci/clients`, of which the first has the version.

    `needs`: programs of Debian; `package`: the one that has the version, for a client that is not pinned.
    """

    name: str
    pull: Pull
    ways: Sequence[Way]
    pinned: Sequence[str] = ()
    needs: Sequence[str] = ()
    package: str = ""
    chart: bool = False

    @property
    def version(self) -> str:
        return pinned()[self.pinned[0]].version if self.pinned else ""

    @property
    def installed(self) -> bool:
        return all(pinned()[name].installed for name in self.pinned)


def _containerd(stage: Stage, way: Way, content: Content, _: Path) -> str:
    return daemons.containerd(stage, way, content)


def _containerd_local(stage: Stage, way: Way, content: Content, _: Path) -> str:
    return daemons.containerd(stage, way, content, "--local")


def _containerd_ranges(stage: Stage, way: Way, content: Content, _: Path) -> str:
    return daemons.containerd(stage, way, content, buffer=CHUNK)


def _helm_range(stage: Stage, way: Way, content: Content, folder: Path) -> str:
    return tools.helm(stage, way, content, folder, ">=1.0.0")


def _scripts() -> Iterator[Client]:
    """Yield the little-used clients, each driven by a script."""
    for name in (
        "oras-py",
        "crpy",
        "docker-registry-client-async",
        "regshape",
        "azure-containerregistry",
        "registry-api-v2-client",
        "docker-charon",
        "python-dxf",
    ):
        yield Client(name, partial(tools.python_script, name), (Way.UPSTREAM,), (name,))
    for name, package in (
        ("docker-registry-client", "docker-registry-client"),
        ("snyk-registry-client", "@snyk/docker-registry-v2-client"),
        ("renovate-registry-client", "@renovatebot/docker-registry-client"),
    ):
        yield Client(package, partial(tools.node_script, name), (Way.UPSTREAM,), (name,), ("node",))


CLIENTS = (
    Client("Docker", daemons.old_docker, (Way.MIRROR, *NAMED), needs=DOCKER, package="docker.io"),
    Client(
        "Docker, containerd store",
        daemons.docker_with_containerd_store,
        (Way.MIRROR, Way.NS, *NAMED),
        ("dockerd", "containerd"),
        ("docker", "unshare"),
    ),
    Client(
        "Docker, classic store",
        daemons.docker_with_classic_store,
        (Way.PATH, *NAMED),
        ("dockerd", "containerd"),
        ("docker",),
    ),
    Client(
        "containerd",
        daemons.old_containerd,
        (Way.NS, Way.PATH, *NAMED),
        needs=("containerd", "ctr"),
        package="containerd",
    ),
    Client(
        "containerd, transfer service",
        _containerd,
        (Way.NS, Way.PATH, Way.OVERRIDE, *NAMED),
        ("containerd",),
    ),
    Client("containerd, `--local`", _containerd_local, (Way.NS, Way.PATH), ("containerd",)),
    Client("containerd, parallel ranges", _containerd_ranges, (Way.NS,), ("containerd",)),
    Client("containerd, CRI by crictl", daemons.kubernetes, (Way.NS,), ("containerd", "crictl")),
    Client("BuildKit", daemons.buildkit, SET, ("buildkit",), ("runc",)),
    Client("Podman", daemons.podman, SET, needs=("podman",), package="podman"),
    Client("Skopeo", tools.skopeo, SET, needs=("skopeo",), package="skopeo"),
    Client("containers/image", tools.containers_image, SET, ("containers-image",)),
    Client("crane", tools.crane, NAMED, ("crane",)),
    Client("regctl", tools.regctl, (Way.MIRROR, Way.NS, *NAMED), ("regctl",)),
    Client("oras", tools.oras, NAMED, ("oras",)),
    Client("cosign save", tools.cosign, NAMED, ("cosign",)),
    Client("helm", tools.helm, NAMED, ("helm",), chart=True),
    Client("helm, range of versions", _helm_range, NAMED, ("helm",), chart=True),
    Client("lazy reader (script)", tools.lazy_reader, (Way.UPSTREAM,)),
    *_scripts(),
)


@dataclass(frozen=True)
class Cell:
    """A client in one of its ways: a row of the table."""

    client: Client
    way: Way

    @property
    def name(self) -> str:
        """Repository of the image that this cell alone pulls."""
        letters = "".join(each if each.isalnum() else "-" for each in self.client.name.lower())
        return f"{'-'.join(filter(None, letters.split('-')))}-{self.way.slug}"

    def __str__(self) -> str:
        return self.name


CELLS = tuple(Cell(client, way) for client in CLIENTS for way in client.ways)


# Reasons for which a client fails, by name, way and state: such a failure is expected, and a footnote.
KNOWN: dict[tuple[str, Way, str], str] = {}


def known(cell: Cell, state: str) -> str:
    """Return the reason for which a client is expected to fail, "" for none."""
    return KNOWN.get((cell.client.name, cell.way, state), "")
