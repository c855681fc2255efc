"""Clients with a daemon, and an upstream that misbehaves: a direct pull succeeds through the mirror.

Each daemon runs once for all situations. Every situation has an image of its own, pulled by the name of the
upstream and by that of the mirror.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.transfer.plan import PlanLimits
from tests.e2e.clients import POLICY, complaint, docker
from tests.e2e.matrix.daemons import CONFIG, CRI, NEW, OLD, TRANSFER
from tests.e2e.matrix.tools import tool
from tests.e2e.processes import Process, attempt
from tests.e2e.tolerance.images import X, add_image
from tests.e2e.tolerance.situations import (
    ACCESS_SITUATIONS,
    HEAD_SITUATIONS,
    LABEL_SITUATIONS,
    RANGE_SITUATIONS,
)
from tests.fakes.registry import FakeRegistry
from tests.leftovers import short_folder
from tests.pinned import pinned
from tests.programs import program
from tests.running import mirror_of

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.slow,
    pytest.mark.needs("dockerd", "docker", "containerd", "ctr", "podman", root=True),
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("no_pauses"),
]

# Pull by a name, and forget the image; return the complaint.
Pull = Callable[[str], str]

SITUATIONS = {
    name: {**HEAD_SITUATIONS, **LABEL_SITUATIONS, **RANGE_SITUATIONS, **ACCESS_SITUATIONS}[name]
    for name in (
        *("HEAD 404", "HEAD 403", "HEAD 405", "HEAD shorter", "HEAD no length", "HEAD other digest"),
        *("label Content-Encoding aws-chunked", "label Content-Encoding x-gzip", "compressed layer"),
        *("no length", "both lengths", "ranges: 416 as go-containerregistry", "store and tokens"),
        *("tokens that expire at once", "token refused with 403"),
    )
}
INSECURE: dict[str, Any] = {"insecure-registries": ["127.0.0.0/8"]}


@contextmanager
def _docker(folder: Path, store: bool | None = None) -> Iterator[Pull]:
    """Run a dockerd: Debian's, or the pinned one with the containerd image store or without it."""
    values: dict[str, Any] = dict(INSECURE)
    if store is not None:
        path = f"{pinned()['containerd'].folder}:{os.environ['PATH']}"
        values |= {"env": {"PATH": path}, "daemon": tool("dockerd"), "storage": "native" if store else "vfs"}
        values |= {"features": {"containerd-snapshotter": store}}
    with docker(folder, [], **values) as client:

        def pull(reference: str) -> str:
            if said := client.try_pull(reference):
                return said
            client.forget(reference)
            return ""

        yield pull


@contextmanager
def _containerd(folder: Path, programs: tuple[str | Path, str | Path], version: int) -> Iterator[Pull]:
    """Run a containerd; `programs`: the daemon and `ctr`."""
    folder.mkdir()
    daemon, ctr = programs
    config = CONFIG.format(folder=folder, version=version, disabled=CRI)
    config += TRANSFER.format(folder=folder, buffer=0) if version == NEW else ""
    (folder / "config.toml").write_text(config)
    own: list[str | Path] = [ctr, "--address", folder / "c.sock"]

    def pull(reference: str) -> str:
        said = complaint([*own, "images", "pull", "--snapshotter", "native", "--plain-http", reference])
        attempt([*own, "images", "rm", "--sync", reference])
        return said

    start: list[str | Path] = [daemon, "--config", folder / "config.toml"]
    with Process(start, folder / "log", lambda: attempt([*own, "version"]).returncode == 0):
        yield pull


@contextmanager
def _podman(folder: Path) -> Iterator[Pull]:
    folder.mkdir()
    (folder / "policy.json").write_text(POLICY)
    own: list[str | Path] = [program("podman"), "--root", folder / "root", "--runroot", folder / "run"]
    own += ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]

    def pull(reference: str) -> str:
        flags: list[str | Path] = ["--tls-verify=false", "--signature-policy", folder / "policy.json"]
        if said := complaint([*own, "pull", *flags, reference]):
            return said
        attempt([*own, "rmi", "--force", reference])
        return ""

    yield pull


@pytest.fixture(scope="module")
def pulls() -> Iterator[Mapping[str, Pull]]:
    """Run all daemons; the pull of each by its name."""
    with short_folder() as folder, ExitStack() as stack:
        debian = (program("containerd"), program("ctr"))
        running = {
            "docker 20.10": _docker(folder / "d"),
            "containerd 1.6": _containerd(folder / "c", debian, OLD),
            "podman": _podman(folder / "p"),
        }
        if pinned()["containerd"].installed:
            newer = (tool("containerd"), tool("containerd", "ctr"))
            running["containerd 2"] = _containerd(folder / "c2", newer, NEW)
        if pinned()["containerd"].installed and pinned()["dockerd"].installed:
            running["docker 29, containerd store"] = _docker(folder / "dc", True)
            running["docker 29, classic store"] = _docker(folder / "dg", False)
        yield {name: stack.enter_context(each) for name, each in running.items()}


async def _all(pulls: Mapping[str, Pull], reference: str) -> dict[str, str]:
    """Pull by each client at the same time; return the complaints."""
    said = await asyncio.gather(*(asyncio.to_thread(pull, reference) for pull in pulls.values()))
    return dict(zip(pulls, said, strict=True))


@pytest.mark.parametrize("name", SITUATIONS)
async def test_daemons_pull_through_the_mirror(
    fake: FakeRegistry, tmp_path: Path, pulls: Mapping[str, Pull], name: str
) -> None:
    """Docker and containerd check the digest of what they unpack, so a success is the right image."""
    image, arm = add_image(fake, name), SITUATIONS[name]
    fill = {"parallel": 4, "parallel_above": 1024 * 1024}
    async with mirror_of(fake, tmp_path / "cache", PlanLimits(first_span=1024 * 1024), fill=fill) as mirror:
        arm(fake, image, len(pulls))
        direct = await _all(pulls, f"{fake.url.removeprefix('http://')}/{X}:t")
        fake.forgive()
        arm(fake, image, 1)
        through = await _all(pulls, f"{mirror.address}/docker.io/{X}:t")
    assert {client: said for client, said in through.items() if said and not direct[client]} == {}
    assert "" in direct.values()
