"""Programs that only look at images cost next to nothing; clients show why an answer is stale."""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX
from tests.e2e.matrix.daemons import CONFIG, CRI, NEW, TRANSFER, Ctr
from tests.e2e.matrix.tools import tool
from tests.e2e.processes import Process, attempt, run
from tests.e2e.tolerance.images import LAYER_BYTES, Pullable, X, add_image
from tests.e2e.tolerance.pulls import command as command_of
from tests.fakes.content import image_index
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.leftovers import short_folder
from tests.pinned import pinned
from tests.programs import program
from tests.running import Running, mirror_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

INSTALLED = {name for name, client in pinned().items() if client.installed}
WARNING = "registry-mirror: not confirmed"
PLATFORMS = 6
# Prefetch as it is by default, with no further connections for a blob.
FILL: dict[str, Any] = {"prefetch": "layer"}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(name not in INSTALLED, reason=f"{name} is not installed")


@contextmanager
def _containerd(folder: Path) -> Iterator[Ctr]:
    (folder / "config.toml").write_text(
        CONFIG.format(folder=folder, version=NEW, disabled=CRI) + TRANSFER.format(folder=folder, buffer=0)
    )
    ctr = Ctr(folder, tool("containerd", "ctr"))
    command: list[str | Path] = [tool("containerd"), "--config", folder / "config.toml"]
    ready = ctr.command("version")
    with Process(command, folder / "containerd.log", lambda: attempt(ready).returncode == 0):
        yield ctr


@pytest.fixture
def ctr() -> Iterator[Ctr]:
    with short_folder() as folder, _containerd(folder) as running:
        yield running


@pytest.mark.parametrize("name", ["crane", "regctl", "oras", "containers-image"])
async def test_client_shows_why_an_answer_is_stale(fake: FakeRegistry, tmp_path: Path, name: str) -> None:
    """The user sees the 299, and only where the answer was stale."""
    if name not in INSTALLED:
        pytest.skip(f"{name} is not installed")
    add_image(fake, "warned")
    async with mirror_of(fake, tmp_path / "cache", tags={"fresh": 0}) as mirror:
        reference = f"{mirror.address}/docker.io/{X}:t"
        config = tmp_path / "regctl.json"
        hosts = json.dumps({"hosts": {mirror.address: {"tls": "disabled"}}})
        await asyncio.to_thread(config.write_text, hosts)

        def pull(folder: str) -> str:
            env = {"HOME": str(tmp_path), "REGCTL_CONFIG": str(config)}
            done = run(command_of(name, reference, tmp_path / folder), env)
            return f"{done.stdout}{done.stderr}"

        assert WARNING not in await asyncio.to_thread(pull, "fresh")
        fake.fault(Fault(raw=b""), times=10_000)
        assert f"{WARNING}: docker.io" in await asyncio.to_thread(pull, "stale")


@needs("containerd")
@pytest.mark.needs("containerd", root=True)
@pytest.mark.parametrize("options", [(), ("--local",)], ids=["transfer service", "local"])
async def test_containerd_shows_no_warning(
    fake: FakeRegistry, tmp_path: Path, ctr: Ctr, options: tuple[str, ...]
) -> None:
    """containerd 2.4 reads warnings for programs that set a handler: neither `ctr` nor the daemon does."""
    add_image(fake, "warned")
    async with mirror_of(fake, tmp_path / "cache", tags={"fresh": 0}) as mirror:
        reference = f"{mirror.address}/docker.io/{X}:t"
        pull = ("images", "pull", "--snapshotter", "native", "--plain-http", *options, reference)
        await asyncio.to_thread(run, ctr.command(*pull))
        fake.fault(Fault(raw=b""), times=10_000)
        done = await asyncio.to_thread(run, ctr.command(*pull))
        log = await asyncio.to_thread((ctr.folder / "containerd.log").read_text)
        assert WARNING not in f"{done.stdout}{done.stderr}{log}"
        assert await mirror.metric('registry_mirror_requests_total{kind="manifest",outcome="stale"}') > 0


def _add_index(fake: FakeRegistry) -> list[Pullable]:
    """Add an index of images for PLATFORMS platforms under the tag `many`."""
    images = [add_image(fake, f"platform {number}") for number in range(PLATFORMS)]
    fake.add_manifest(X, image_index([each.manifest_data for each in images]), OCI_INDEX, "many")
    return images


async def _fetched(fake: FakeRegistry, mirror: Running, command: list[str | Path]) -> int:
    """Return the bytes that the mirror has received from the upstream once a program has looked."""
    env = {"DOCKER_CONFIG": os.devnull, "DOCKER_CLI_EXPERIMENTAL": "enabled"}
    await asyncio.to_thread(lambda: run(command, env))
    await _idle()
    return int(await mirror.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}'))


async def _idle() -> None:
    """Wait until nothing is fetched ahead."""
    while pending := [each for each in asyncio.all_tasks() if each.get_name().startswith("prefetch")]:
        await asyncio.wait(pending)


@needs("crane")
@pytest.mark.parametrize("what", ["manifest", "digest", "config"])
async def test_crane_looks_at_an_image_for_little(fake: FakeRegistry, tmp_path: Path, what: str) -> None:
    image = add_image(fake, "looked at")
    async with mirror_of(fake, tmp_path / "cache", fill=FILL) as mirror:
        command: list[str | Path] = [tool("crane"), what, f"{mirror.address}/docker.io/{X}:t"]
        assert await _fetched(fake, mirror, command) < 5_000 < LAYER_BYTES
        assert fake.requests("GET", image.layer) == 0


@pytest.mark.needs("docker", "dockerd")
async def test_docker_looks_at_all_platforms_for_little(fake: FakeRegistry, tmp_path: Path) -> None:
    """`docker manifest inspect -v` gets the manifest of each platform, and not one layer comes for that."""
    images = _add_index(fake)
    async with mirror_of(fake, tmp_path / "cache", fill=FILL) as mirror:
        reference = f"{mirror.address}/docker.io/{X}:many"
        docker = await asyncio.to_thread(program, "docker")
        command: list[str | Path] = [docker, "manifest", "inspect", "--insecure", "-v", reference]
        assert await _fetched(fake, mirror, command) < PLATFORMS * 5_000
        for image in images:
            assert fake.requests("GET", image.manifest) == 1
            assert fake.requests("GET", image.layer) == 0


@needs("crane")
async def test_crane_pull_fetches_each_layer_once(fake: FakeRegistry, tmp_path: Path) -> None:
    """The other side: a pull of the same image brings its layer."""
    image = add_image(fake, "pulled")
    async with mirror_of(fake, tmp_path / "cache", fill=FILL) as mirror:
        reference = f"{mirror.address}/docker.io/{X}:t"
        command: list[str | Path] = [tool("crane"), "pull", "--format=oci", reference, tmp_path / "image"]
        assert await _fetched(fake, mirror, command) > LAYER_BYTES
        await mirror.landed(Digest.of(image.layer_data))
        assert fake.requests("GET", image.layer) == 1
