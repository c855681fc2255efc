"""Cache folders of other versions: an older one is used, a newer one is refused and stays as it was."""

import asyncio
import os
import tarfile
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.recovery import VERSION
from mirror.store.tokens.token_store import TokenStore
from tests.contract.folders.make import LAYERS, TYPE
from tests.fakes.content import image_manifest
from tests.fakes.registry import FakeRegistry
from tests.running import configured, serving
from tests.unit.cli.test_app import run
from tests.wire import Wire

FOLDERS = sorted((Path(__file__).parent / "folders").glob("*.tar.xz"))


def unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


@pytest.mark.parametrize("archive", FOLDERS, ids=lambda path: path.name.partition(".")[0])
async def test_upgrade_serves_what_an_older_version_has_cached(archive: Path, tmp_path: Path) -> None:
    """The image is pulled while its upstream is gone; then it is asked about as any other."""
    await asyncio.to_thread(unpack, archive, tmp_path)
    config = b'{"architecture": "amd64", "os": "linux", "config": {"Image": "library/alpine:3.20"}}'
    manifest = image_manifest(config, LAYERS)
    accept = [f"Accept: {TYPE}"]
    async with serving(configured(tmp_path, {"docker.io": "http://127.0.0.1:9"})) as mirror:
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", "/v2/library/alpine/manifests/3.20", accept)
            reply = await wire.reply()
            assert (reply.status, reply.body) == (200, manifest)
            for data in (config, *LAYERS):
                wire.send("GET", f"/v2/library/alpine/blobs/{Digest.of(data)}")
                assert (await wire.reply()).body == data
        folder = mirror.service.folder
        if archive.name != "first.tar.xz":  # that version had no file of pins, and no tokens
            pins = await asyncio.to_thread(folder.pins.all)
            assert [str(each.pin.images) for each in pins] == ["docker.io/library/alpine:3.20"]
            tokens = await asyncio.to_thread(TokenStore(tmp_path, folder.epoch).all)
            assert [each.name for each in tokens] == ["ci"]
        await asyncio.to_thread(folder.recovery.drop_connections)
    async with FakeRegistry() as hub:
        image = hub.add_image("library/alpine", "3.21", [*LAYERS, b"of the new version"])
        async with (
            serving(configured(tmp_path, {"docker.io": hub.url})) as mirror,
            await Wire.open(mirror.address) as wire,
        ):
            wire.send("GET", "/v2/library/alpine/manifests/3.21", accept)
            assert (await wire.reply()).body == image.manifest_data
            for digest, data in zip(image.layers, image.layers_data, strict=True):
                wire.send("GET", f"/v2/library/alpine/blobs/{digest}")
                assert (await wire.reply()).body == data
        assert hub.requests("GET", "/blobs/") == 1  # what was here already is not fetched again


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of the last change of every file."""
    files = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return {str(each): (each.stat().st_size, each.stat().st_mtime_ns) for each in files}


def test_downgrade_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """The server and the commands end with what to do; the folder is as the newer version left it."""
    unpack(FOLDERS[-1], tmp_path)
    (tmp_path / "version").write_text(f"{VERSION + 1}\n")
    before = state_of(tmp_path)
    for command in (["serve", "--listen", "127.0.0.1:0"], ["ls"], ["gc"]):
        found = run(*command, "--config", "", "--cache-dir", str(tmp_path))
        assert found.returncode != 0
        assert f"its layout is version {VERSION + 1}, and this mirror knows {VERSION}" in found.stderr
        assert "Run that mirror, choose another folder" in found.stderr
        assert "Traceback" not in found.stderr
    assert state_of(tmp_path) == before
