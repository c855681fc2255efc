"""Imports beside a mirror that serves: content is served at once, and fills and clients go on."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.bundles import random_bytes
from tests.fakes.cached import X, open_folder, put_image
from tests.fakes.content import image_manifest
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, Running, configured, serving
from tests.unit.cli.test_app import run
from tests.unit.manage.carry.bundles import exported
from tests.unit.manage.carry.carrying import imported
from tests.wire import Wire, get

PATH = "/v2/docker.io/library/x"
NAME = "docker.io/library/x:1"
LAYERS = [b"small layer", random_bytes(LARGE, 1)]
DIGEST = Digest.of(LAYERS[1])


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    """The upstream, which has nothing unless a test says so."""
    async with FakeRegistry() as fake:
        yield fake


@pytest.fixture
async def mirror(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(configured(tmp_path / "cache", {"docker.io": hub.url})) as running:
        yield running


@pytest.fixture
async def lab(hub: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    """A mirror without a network."""
    config = configured(tmp_path / "cache", {"docker.io": hub.url}, server={"offline": True})
    async with serving(config) as running:
        yield running


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of one image, made at another mirror."""
    with closing(open_folder(tmp_path / "sender")) as sender:
        put_image(sender, X, "1", LAYERS)
        return exported(sender, tmp_path / "lab.tar", "x:1")[0]


async def import_beside(mirror: Running, bundle: Path) -> str:
    """Import as a command does, with a folder of its own; return the result of the image."""

    def work() -> str:
        with closing(CacheDirectory(mirror.config.cache.dir, mirror.config.cache)) as folder:
            return imported(folder, bundle)[NAME].state

    return await asyncio.to_thread(work)


async def test_import_is_served_at_once(lab: Running, bundle: Path) -> None:
    """A tag that was missing a moment ago is there, and says that its upstream has not confirmed it."""
    assert (await get(lab.address, f"{PATH}/manifests/1")).status == 404
    assert await import_beside(lab, bundle) == "imported"
    manifest = await get(lab.address, f"{PATH}/manifests/1")
    assert (manifest.status, manifest.header("warning")[:4]) == (200, "110 ")
    assert any("imported on " in value for _, value in manifest.raw_headers)
    for data in LAYERS:
        assert (await get(lab.address, f"{PATH}/blobs/{Digest.of(data)}")).body == data


async def test_import_replaces_a_tag_in_memory(lab: Running, bundle: Path, tmp_path: Path) -> None:
    """A running mirror has copies of tags in memory, which an import makes out of date."""
    assert await import_beside(lab, bundle) == "imported"
    before = (await get(lab.address, f"{PATH}/manifests/1")).body

    def newer() -> Path:
        with closing(open_folder(tmp_path / "sender")) as sender:
            put_image(sender, X, "1", [b"changed"])
            return exported(sender, tmp_path / "newer.tar", "x:1")[0]

    assert await import_beside(lab, await asyncio.to_thread(newer)) == "imported"
    after = await get(lab.address, f"{PATH}/manifests/1")
    assert after.body != before
    assert (await get(lab.address, f"{PATH}/blobs/{Digest.of(b'changed')}")).body == b"changed"


async def test_import_disturbs_no_download(mirror: Running, hub: FakeRegistry, bundle: Path) -> None:
    """A client that downloads the same blob meanwhile gets all of it, and the upstream is asked once."""
    hub.add_image("library/x", "1", LAYERS)
    gate = hub.hold(DIGEST, after=1000)
    await get(mirror.address, f"{PATH}/manifests/1")
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", f"{PATH}/blobs/{DIGEST}")
        await gate.reached.wait()
        assert await import_beside(mirror, bundle) in ("imported", "older")  # by the second of the pull
        gate.release()
        reply = await wire.reply()
    assert (reply.status, reply.body == LAYERS[1]) == (200, True)
    await mirror.landed(DIGEST)
    assert (await get(mirror.address, f"{PATH}/blobs/{DIGEST}")).body == LAYERS[1]
    assert sum(DIGEST.encoded in seen.path for seen in hub.log if seen.method == "GET") == 1
    assert await asyncio.to_thread(mirror.service.folder.blobs.check) == []


async def test_import_opens_nothing_for_other_repositories(
    mirror: Running, hub: FakeRegistry, bundle: Path
) -> None:
    """A manifest elsewhere that names an imported digest opens nothing: its upstream says no."""
    assert await import_beside(mirror, bundle) == "imported"
    hub.add_manifest("library/evil", image_manifest(b"{}", LAYERS), tag="1")
    assert (await get(mirror.address, "/v2/docker.io/library/evil/manifests/1")).status == 200
    assert (await get(mirror.address, f"/v2/docker.io/library/evil/blobs/{DIGEST}")).status == 404
    assert (await get(mirror.address, f"{PATH}/blobs/{DIGEST}")).body == LAYERS[1]


CONFIG = """
[cache]
dir = "{cache}"
min_free = "0"
[[upstream]]
name = "docker.io"
url = "{url}"
"""


@pytest.mark.slow
async def test_export_fetches_what_is_missing(hub: FakeRegistry, tmp_path: Path) -> None:
    """An image that was never pulled is in the bundle; one that the upstream lacks is named."""
    image = hub.add_image("library/x", "1", LAYERS)
    config = tmp_path / "mirror.toml"
    await asyncio.to_thread(config.write_text, CONFIG.format(cache=tmp_path / "cache", url=hub.url))
    arguments = ("export", "-o", str(tmp_path / "lab.tar"), "--fetch", "--config", str(config))
    done = await asyncio.to_thread(run, *arguments, "x:1")
    assert done.returncode == 0, done.stderr
    listed = await asyncio.to_thread(run, "bundle", "ls", str(tmp_path / "lab.tar"), "--json")
    assert [each["digest"] for each in json.loads(listed.stdout)["images"]] == [str(image.manifest)]
    done = await asyncio.to_thread(run, *arguments, "x:2")
    assert done.returncode == 1
    assert "docker.io/library/x:2: nothing of it is here" in done.stderr
    assert (await asyncio.to_thread(run, *arguments, "quay.io/*")).returncode == 2
